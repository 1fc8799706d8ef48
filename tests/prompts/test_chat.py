"""The client for chat completions, against a server on loopback that behaves and misbehaves."""

import base64
import contextlib
import io
import json
import logging
import pickle
import socket
import threading
import time
import traceback
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stub_endpoint import Answer, StubEndpoint, completion

from wanray.errors import ConfigError, FailureCause, InfrastructureError, InputError
from wanray.prompts import ChatClient, CutAnswerError, EndpointError, Question
from wanray.prompts.replies import MAX_BYTES
from wanray.prompts.waits import pause_s

KEY = "sk-secret-0123456789"
CAT = Question(text="a cat", system="Write it out.", seed=7)
GOOD = completion("A grey cat.")


class Hours:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def hours() -> Hours:
    return Hours()


def client_of(stub: StubEndpoint, hours: Hours, **options: Any) -> ChatClient:
    options = {"api_key": KEY, "sleep": hours.sleep, "clock": hours.clock, "timeout_s": 5.0} | options
    return ChatClient(stub.base_url, "qwen-plus", **options)


def asked(stub: StubEndpoint, hours: Hours, question: Question = CAT, **options: Any) -> str:
    with contextlib.closing(client_of(stub, hours, **options)) as client:
        return client.ask(question)


def error_of(status: int, message: str = "it is wrong") -> Answer:
    return Answer(json.dumps({"error": {"message": message}}).encode(), status)


def test_the_request(endpoint: StubEndpoint, hours: Hours) -> None:
    assert asked(endpoint, hours) == "A grey cat walks along a wall."
    (seen,) = endpoint.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.body == {
        "model": "qwen-plus",
        "messages": [
            {"role": "system", "content": "Write it out."},
            {"role": "user", "content": "a cat"},
        ],
        "seed": 7,
        "max_tokens": 512,
    }


def test_without_a_key_none_is_sent(
    endpoint: StubEndpoint, hours: Hours, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    asked(endpoint, hours, api_key=None, temperature=0.0)
    (seen,) = endpoint.seen
    assert "Authorization" not in seen.headers
    assert seen.body["temperature"] == 0.0


def test_seeds_fit_the_api(endpoint: StubEndpoint, hours: Hours) -> None:
    asked(endpoint, hours, Question(text="a cat", system="", seed=2**32 - 1, max_tokens=9))
    assert endpoint.seen[0].body["seed"] == 2**31 - 1
    assert endpoint.seen[0].body["max_tokens"] == 9


@pytest.mark.parametrize(
    ("size", "sent"),
    [
        ((512, 512), (512, 512)),
        ((100, 60), (100, 60)),
        ((1280, 720), (682, 384)),
        ((720, 1280), (384, 682)),
        ((3000, 1), (3000, 1)),
    ],
)
def test_images_are_made_small(
    endpoint: StubEndpoint, hours: Hours, size: tuple[int, int], sent: tuple[int, int]
) -> None:
    width, height = size
    rgb_HWC = np.full((height, width, 3), (200, 30, 60), np.uint8)
    asked(endpoint, hours, Question(text="", images=(rgb_HWC,), system="S", seed=1))
    (part,) = endpoint.seen[0].body["messages"][1]["content"]
    head, _, data = part["image_url"]["url"].partition(",")
    assert (part["type"], head) == ("image_url", "data:image/png;base64")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", sent)
    assert (np.asarray(image) == (200, 30, 60)).all()


def test_images_come_in_order_before_the_text(endpoint: StubEndpoint, hours: Hours) -> None:
    first, last = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 255, np.uint8)
    asked(endpoint, hours, Question(text="it wakes", images=(first, last), system="S", seed=1))
    *images, text = endpoint.seen[0].body["messages"][1]["content"]
    assert text == {"type": "text", "text": "it wakes"}
    urls = [part["image_url"]["url"].partition(",")[2] for part in images]
    levels = [int(np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))).max()) for url in urls]
    assert levels == [0, 255]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_troubles_are_tried_again(endpoint: StubEndpoint, hours: Hours, status: int) -> None:
    endpoint.answers = [error_of(status), error_of(status), GOOD]
    assert asked(endpoint, hours) == "A grey cat."
    first_s, second_s = hours.slept
    assert 0.5 <= first_s <= 1 <= second_s <= 2
    assert [seen.body for seen in endpoint.seen] == [endpoint.seen[0].body] * 3


def test_pauses_grow_to_a_minute() -> None:
    for num_failed, most_s in ((1, 1), (2, 2), (5, 16), (7, 60), (100, 60)):
        assert most_s / 2 <= pause_s(num_failed) <= most_s
    assert pause_s(1, wish_s=1000) == 60


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "100000000000000"}, 60.0),
        ({"Retry-After": formatdate(1020, usegmt=True), "Date": formatdate(1000, usegmt=True)}, 20.0),
        ({"Retry-After": formatdate(9000, usegmt=True), "Date": formatdate(1000, usegmt=True)}, 60.0),
    ],
)
def test_retry_after_is_kept(
    endpoint: StubEndpoint, hours: Hours, headers: dict[str, str], pause_s: float
) -> None:
    endpoint.answers = [Answer(b"", 429, headers), GOOD]
    assert asked(endpoint, hours) == "A grey cat."
    assert hours.slept == [pause_s]


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "soon"},
        {"Retry-After": "-5"},
        {"Retry-After": "0"},
        {"Retry-After": formatdate(2000, usegmt=True)},
        {"Retry-After": formatdate(900, usegmt=True), "Date": formatdate(1000, usegmt=True)},
    ],
)
def test_useless_retry_after(endpoint: StubEndpoint, hours: Hours, headers: dict[str, str]) -> None:
    endpoint.answers = [Answer(b"", 503, headers), GOOD]
    asked(endpoint, hours)
    (slept_s,) = hours.slept
    assert 0.5 <= slept_s <= 1


def test_retries_end(endpoint: StubEndpoint, hours: Hours, caplog: pytest.LogCaptureFixture) -> None:
    endpoint.answers = [error_of(500)]
    with pytest.raises(EndpointError, match="no answer in 3 tries: HTTP 500") as raised:
        asked(endpoint, hours, retries=2)
    assert (len(endpoint.seen), len(hours.slept)) == (3, 2)
    assert [record.levelname for record in caplog.records if record.name == "wanray.prompts.chat"] == [
        "WARNING"
    ] * 3
    assert isinstance(raised.value, InfrastructureError)
    assert raised.value.cause is FailureCause.ERROR
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_one_try_only(endpoint: StubEndpoint, hours: Hours) -> None:
    endpoint.answers = [error_of(500)]
    with pytest.raises(EndpointError, match="in 1 try: "):
        asked(endpoint, hours, retries=0)
    assert hours.slept == []


def test_a_server_that_does_not_answer(endpoint: StubEndpoint, hours: Hours) -> None:
    endpoint.answers = [Answer(silent=True), GOOD]
    assert asked(endpoint, hours, timeout_s=0.2) == "A grey cat."
    endpoint.answers = [Answer(silent=True)]
    with pytest.raises(EndpointError, match="ReadTimeout"):
        asked(endpoint, hours, timeout_s=0.1, retries=1)


def test_a_server_that_never_ends(endpoint: StubEndpoint, hours: Hours) -> None:
    endpoint.answers = [Answer(b" " * 100, byte_pause_s=0.05)]
    started_s = time.monotonic()
    with pytest.raises(EndpointError, match="ReadTimeout"):
        asked(endpoint, hours, timeout_s=0.3, retries=0, clock=time.monotonic)
    assert time.monotonic() - started_s < 3


def test_nobody_listens(hours: Hours) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = ChatClient(f"http://127.0.0.1:{port}", "any", KEY, retries=1, sleep=hours.sleep)
    with pytest.raises(EndpointError, match="in 2 tries: ConnectionError"):
        client.ask(CAT)
    client.close()
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b""),
        Answer(b"<html>"),
        Answer(b"[" * 100_000),
        Answer(b"\xff\xfe\xfa"),
        Answer(b"null"),
        Answer(b"[]"),
        Answer(b"{}"),
        Answer(b'{"choices": []}'),
        Answer(b'{"choices": null}'),
        Answer(b'{"choices": ["text"]}'),
        Answer(b'{"choices": [{"text": "A cat."}]}'),
        completion(None),
        completion(["A cat."]),
        completion("A \ud800 cat."),
        Answer(GOOD.body, num_bytes=20),
    ],
    ids=lambda answer: str(answer.body[:20]),
)
def test_malformed_answers(endpoint: StubEndpoint, hours: Hours, answer: Answer) -> None:
    endpoint.answers = [answer, GOOD]
    assert asked(endpoint, hours) == "A grey cat."
    endpoint.answers = [answer]
    with pytest.raises(EndpointError, match="in 2 tries"):
        asked(endpoint, hours, retries=1)


def test_long_answers_are_not_read_to_their_end(endpoint: StubEndpoint, hours: Hours) -> None:
    endpoint.answers = [Answer(b" " * (MAX_BYTES + 2**20) + GOOD.body)]
    with pytest.raises(EndpointError, match=f"its answer has more than {MAX_BYTES} bytes"):
        asked(endpoint, hours, retries=0)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (error_of(400), InputError, r"refuses the prompt \(HTTP 400\): it is wrong"),
        (error_of(422, "x " * 900), InputError, r"HTTP 422.*: (x ){100}\.\.\."),
        (Answer(b'{"message": "unsafe"}', 400), InputError, "unsafe"),
        (Answer(b'{"detail": [{"msg": "too long"}]}', 422), InputError, "too long"),
        (Answer(b"plain\nwords\x1b", 400), InputError, r"plain words\\x1b$"),
        (Answer(b"", 400), InputError, "no reason given"),
        (error_of(413), InputError, "HTTP 413"),
        (error_of(401), ConfigError, r"the endpoint refuses the key \(HTTP 401\)"),
        (error_of(403), ConfigError, r"the endpoint refuses the key \(HTTP 403\)"),
        (error_of(404, "no model"), ConfigError, "HTTP 404: no model: check the endpoint and the model "),
        (error_of(405), ConfigError, "HTTP 405"),
        (error_of(400, "pinned to 'a'; requested 'qwen-plus'"), ConfigError, "and the model qwen-plus$"),
        (completion("A", finish_reason="content_filter"), InputError, "content filter"),
        (completion(None, finish_reason="content_filter"), InputError, "content filter"),
        (completion("A", finish_reason="length"), CutAnswerError, "within max_tokens"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_final_answers(
    endpoint: StubEndpoint, hours: Hours, answer: Answer, kind: type[Exception], message: str
) -> None:
    endpoint.answers = [answer]
    with pytest.raises(kind, match=message):
        asked(endpoint, hours)
    assert (len(endpoint.seen), hours.slept) == (1, [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(endpoint: StubEndpoint, hours: Hours, status: int) -> None:
    with StubEndpoint() as other:
        place = f"http://somebody:hush@127.0.0.1:{other.server_port}/v2?token=hush"
        endpoint.answers = [Answer(b"", status, {"Location": place})]
        with pytest.raises(ConfigError, match=rf"redirects to http://127.0.0.1:{other.server_port}/v2:"):
            asked(endpoint, hours)
        assert (len(endpoint.seen), other.seen) == (1, [])


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:port/v1",
        "http://[::1/v1",
        "https://somebody:hush@host/v1",
        "https://host/v1?key=hush",
        "https://host/v1#hush",
    ],
)
def test_what_is_no_endpoint(base_url: str) -> None:
    with pytest.raises(ConfigError, match="the endpoint") as raised:
        ChatClient(base_url, "any", None)
    assert "hush" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("key", ["", " ", f"{KEY}\n", f"Bearer {KEY}", f"{KEY}\u00e9"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ConfigError, match="the API key") as raised:
        ChatClient("http://host", "any", key)
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "answer",
    [
        error_of(400, f"bad key {KEY}"),
        error_of(400, "x" * 190 + KEY),
        Answer(f'{{"key": "{KEY}"}}'.encode(), 422),
        error_of(401, f"unknown: {KEY}"),
        error_of(403, KEY),
        error_of(404, KEY),
        error_of(429, KEY),
        error_of(500, KEY),
        Answer(KEY.encode()),
        Answer(b"", 302, {"Location": f"https://host/{KEY}?{KEY}"}),
        Answer(b"", 503, {"Retry-After": KEY, "Date": KEY}),
        Answer(silent=True),
        Answer(GOOD.body, num_bytes=20),
        completion(f"A cat with {KEY}."),
        GOOD,
    ],
    ids=range(15),
)
def test_the_key_is_shown_nowhere(
    endpoint: StubEndpoint, hours: Hours, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    endpoint.answers = [answer]
    caplog.set_level(logging.DEBUG)
    texts = []
    with contextlib.closing(client_of(endpoint, hours, retries=1, timeout_s=0.2)) as client:
        try:
            texts.append(client.ask(CAT))
        except (ConfigError, InputError, InfrastructureError) as error:
            texts += [str(error), repr(error), *traceback.format_exception(error)]
        texts += [repr(client), str(client), repr(vars(client))]
    logs = [f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records]
    assert logs
    assert KEY[-8:] not in "\n".join(texts + logs)
    assert endpoint.seen[0].headers["Authorization"].endswith(KEY)


def test_requests_keep_their_distance(endpoint: StubEndpoint, hours: Hours) -> None:
    endpoint.answers = [error_of(500), GOOD]
    with contextlib.closing(client_of(endpoint, hours, requests_per_minute=6)) as client:
        client.ask(CAT)
        client.ask(CAT)
        assert hours.now_s == pytest.approx(20)
        hours.now_s += 100
        client.ask(CAT)
    assert hours.now_s == pytest.approx(120)
    assert len(endpoint.seen) == 4


def test_threads_share_a_client(endpoint: StubEndpoint, hours: Hours) -> None:
    answers: list[str] = []
    with contextlib.closing(client_of(endpoint, hours)) as client:
        threads = [threading.Thread(target=lambda: answers.append(client.ask(CAT))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["A grey cat walks along a wall."] * 8
