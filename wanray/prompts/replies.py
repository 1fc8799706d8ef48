"""What an endpoint for chat completions replies: the answer in it, or why there is none."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from wanray.errors import ConfigError, InputError, WanrayError, printable
from wanray.media import shown
from wanray.prompts.question import CutAnswerError

MAX_BYTES = 2**20
"""Of a reply; a longer one is no prompt."""
_MAX_REASON = 200
"""Characters of an endpoint's message that are passed on."""
_NO_KEY = (401, 403)
_THIS_QUESTION = (400, 413, 422, 451)
"""Statuses that speak of what was asked: its form, its length, its content."""


class MalformedError(ValueError):
    """A reply that is no chat completion."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Of HTTP."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    """The body."""


def answer_of(data: bytes) -> str:
    """The content of the first choice.

    Raises:
        MalformedError: there is none; the message is the reason.
        InputError: a filter took it out, or (CutAnswerError) it reached `max_tokens`.
    """
    if len(data) > MAX_BYTES:
        raise MalformedError(f"its answer has more than {MAX_BYTES} bytes")
    try:
        choice = _json(data)["choices"][0]
        content, ended = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise MalformedError("its answer is no chat completion") from None
    if ended == "content_filter":
        raise InputError("the endpoint's content filter stopped the answer: change the prompt")
    if not isinstance(content, str) or not _is_unicode(content):
        raise MalformedError("its answer has no text")
    if ended == "length":
        raise CutAnswerError("the answer does not end within max_tokens: allow more")
    return content


def refusal_of(reply: Reply, url: str, model: str, hidden: Callable[[str], str]) -> WanrayError:
    """The error that tells of a final status; one that names the model speaks of all questions.

    hidden: takes secrets out of a text.
    """
    if reply.status in _NO_KEY:
        return ConfigError(
            f"{url}: the endpoint refuses the key (HTTP {reply.status}): "
            "is it set, and may it be used for this model?"
        )
    if 300 <= reply.status < 400:
        place = hidden(shown(urljoin(url, reply.headers.get("Location", ""))))
        return ConfigError(f"{url} redirects to {place}: name the place itself as the endpoint")
    reason = _shortened(hidden(_message(reply.data)))
    names_model = any(f"{quote}{model}{quote}" in reason for quote in "'\"`")
    if reply.status in _THIS_QUESTION and not names_model:
        return InputError(f"{url} refuses the prompt (HTTP {reply.status}): {reason}")
    return ConfigError(
        f"{url} answers HTTP {reply.status}: {reason}: check the endpoint and the model {model}"
    )


def _message(data: bytes) -> str:
    """The words of an error's reply, in whichever of the usual places they are."""
    try:
        found = _json(data)
    except MalformedError:
        return data[:MAX_BYTES].decode(errors="replace")
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _shortened(text: str) -> str:
    line = printable(" ".join(text.split())) or "no reason given"
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}..."


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedError("its answer is no JSON") from None


def _is_unicode(text: str) -> bool:
    """Whether it can be stored: JSON may have halves of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
