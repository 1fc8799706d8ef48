"""Asks any endpoint that speaks OpenAI's chat completions: DashScope, vLLM, SGLang, `transformers serve`.

The key is sent to that endpoint and shown nowhere. What an endpoint says is read by `replies`.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from wanray.errors import ConfigError
from wanray.media import shown
from wanray.prompts.pictures import data_url
from wanray.prompts.question import EndpointError, Question
from wanray.prompts.replies import MAX_BYTES, MalformedError, Reply, answer_of, refusal_of
from wanray.prompts.waits import Pace, pause_s, retry_after_s

logger = logging.getLogger(__name__)

NUM_SEEDS = 2**31
"""DashScope takes no larger seeds."""
_PART_BYTES = 32
"""Read between two looks at the clock: so many are waited for, however slowly they come."""
_TRANSIENT = (408, 429)


class ChatClient:
    """An Extender; threads may share it."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        requests_per_minute: float | None = None,
        temperature: float | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is sent yet.

        base_url: what comes before `/chat/completions`; without user, password and query.
        api_key: None where the endpoint asks for none.
        timeout_s: of one try, from the request to the last byte of the answer.
        retries: tries after the first.
        requests_per_minute: of this client, retries included; None: no limit.
        temperature: None leaves it to the endpoint.
        sleep, clock: as in `time`; other ones are for tests.

        Raises:
            ConfigError: the URL or the key cannot be used.
        """
        self._url = f"{_checked(base_url)}/chat/completions"
        self._model, self._temperature = model, temperature
        self._timeout_s, self._retries = timeout_s, retries
        self._sleep, self._clock = sleep, clock
        self._pace = Pace(requests_per_minute, sleep, clock)
        self._key = _Key(api_key)
        self._session = requests.Session()
        self._session.auth = self._key  # with it .netrc is left alone

    def __repr__(self) -> str:
        return f"ChatClient({self._url!r}, model={self._model!r})"

    def ask(self, question: Question) -> str:
        """The content of the first choice, as it came.

        Raises:
            InputError: the endpoint refuses this question, or (CutAnswerError) its answer has no end.
            ConfigError: it refuses the key, the model or the path, or it is elsewhere.
            EndpointError: no answer of use after all retries.
        """
        body = json.dumps(self._body(question)).encode()
        reasons: list[str] = []
        for num_failed in range(1, self._retries + 2):
            self._pace.wait()
            outcome = self._try(body)
            if isinstance(outcome, str):
                return outcome
            reasons.append(outcome.reason)
            logger.warning("no answer endpoint=%s try=%d reason=%s", self._url, num_failed, outcome.reason)
            if num_failed <= self._retries:
                self._sleep(pause_s(num_failed, outcome.wish_s))
        told, tries = ", then ".join(dict.fromkeys(reasons)), "try" if len(reasons) == 1 else "tries"
        raise EndpointError(
            f"{self._url} gave no answer in {len(reasons)} {tries}: {told}: "
            f"is it up, does it have the model {self._model}, and may it be asked this often?"
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _body(self, question: Question) -> dict[str, Any]:
        """The request as the API has it."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": _content(question)},
            ],
            "seed": question.seed % NUM_SEEDS,
            "max_tokens": question.max_tokens,
        }
        return body if self._temperature is None else body | {"temperature": self._temperature}

    def _try(self, body: bytes) -> "str | _Trouble":
        """The answer, or why it may come later; raises what is final."""
        try:
            reply = self._post(body)
        except requests.RequestException as error:
            if isinstance(error, ValueError):
                raise ConfigError(f"{self._url} cannot be asked: {type(error).__name__}") from None
            return _Trouble(type(error).__name__)  # its text may quote a proxy's password
        if reply.status in _TRANSIENT or reply.status >= 500:
            return _Trouble(f"HTTP {reply.status}", retry_after_s(reply.headers))
        if reply.status != requests.codes.ok:
            raise refusal_of(reply, self._url, self._model, self._key.hidden_in)
        try:
            return self._key.hidden_in(answer_of(reply.data))
        except MalformedError as error:
            return _Trouble(str(error))

    def _post(self, body: bytes) -> Reply:
        """One request; an answer longer than MAX_BYTES is cut behind the first byte too many."""
        deadline_s = self._clock() + self._timeout_s
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        with self._session.post(
            self._url,
            data=body,
            headers=headers,
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
        ) as response:
            data = bytearray()
            for part in response.iter_content(_PART_BYTES):
                data += part
                if len(data) > MAX_BYTES:
                    break
                if self._clock() > deadline_s:
                    raise requests.ReadTimeout
            return Reply(response.status_code, response.headers, bytes(data))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a try failed that may go better later."""

    reason: str
    wish_s: float = 0.0
    """How long the endpoint wants to be left alone."""


class _Key(AuthBase):
    """Puts the key into requests, and takes it out of texts."""

    def __init__(self, key: str | None) -> None:
        if key is not None and not (key.isascii() and key.isprintable() and key.split() == [key]):
            raise ConfigError("the API key is blank, or has spaces, line breaks or other signs no key has")
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def hidden_in(self, text: str) -> str:
        """`text` without the key."""
        return text if self._key is None else text.replace(self._key, "***")


def _content(question: Question) -> str | list[dict[str, Any]]:
    """The user's message: a text, or images and the text below them."""
    assert question.text or question.images, "nothing to ask"
    if not question.images:
        return question.text
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in question.images
    ]
    return [*parts, {"type": "text", "text": question.text}] if question.text else parts


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        is_plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ConfigError(f"the endpoint {shown(base_url)!r} is no URL: check host and port") from None
    if not is_plain or "@" in base_url or "?" in base_url or "#" in base_url:
        raise ConfigError(
            f"the endpoint {shown(base_url)!r} must be http(s)://host[:port]/path, without user, password "
            "and query"
        )
    return base_url.rstrip("/")
