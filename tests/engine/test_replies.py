"""What goes over the endpoint's wire, and what it remembers: bodies, ranges of files, errors, the backlog."""

import asyncio
import json
import time

import pytest
from fastapi import Request

from wanray.engine.endpoint.archive import is_key
from wanray.engine.endpoint.replies import Refusal, ranged, read_json
from wanray.engine.endpoint.views import error
from wanray.records import Record
from wanray.records import Request as Wanted
from wanray.registry import Guidance
from wanray.sinks.backlog import Accepted, Backlog
from wanray.storage import Store

CONTENT = bytes(range(100))


def answer(wanted, content=CONTENT):
    """(status, body, headers) for a Range header."""
    response = ranged(content, wanted, "video/mp4", "abc")
    return response.status_code, bytes(response.body), response.headers


# Ranges, by RFC 9110


def test_without_a_range_all_is_sent():
    code, body, headers = answer("")
    assert (code, body) == (200, CONTENT)
    assert headers["content-type"] == "video/mp4"
    assert headers["content-length"] == "100"
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"] == '"abc"'


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-9", 0, 9),
        ("bytes=10-19", 10, 19),
        ("bytes=007-009", 7, 9),
        ("bytes=90-99", 90, 99),
        ("bytes=90-1000", 90, 99),
        ("bytes=0-", 0, 99),
        ("bytes=99-", 99, 99),
        ("bytes=-1", 99, 99),
        ("bytes=-10", 90, 99),
        ("bytes=-1000", 0, 99),
    ],
)
def test_a_range_is_sent(wanted, first, last):
    code, body, headers = answer(wanted)
    assert (code, body) == (206, CONTENT[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/100"
    assert headers["content-length"] == str(last - first + 1)
    assert (headers["content-type"], headers["etag"]) == ("video/mp4", '"abc"')


@pytest.mark.parametrize("wanted", ["bytes=100-", "bytes=100-200", "bytes=1000-2000", "bytes=-0"])
def test_beyond_the_end_there_is_nothing(wanted):
    code, body, headers = answer(wanted)
    assert (code, body) == (416, b"")
    assert headers["content-range"] == "bytes */100"


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=0-1,5-6",
        "bytes=5-2",
        "bytes=0x1-0x2",
        "bytes=--5",
        "frames=0-1",
        "0-1",
        " bytes=0-1",
        f"bytes=0-{'9' * 5000}x",
    ],
)
def test_what_is_no_range_is_passed_over(wanted):
    code, body, _ = answer(wanted)
    assert (code, body) == (200, CONTENT)


@pytest.mark.parametrize("wanted", [f"bytes={'9' * 5000}-", f"bytes=0-{'9' * 5000}", f"bytes=-{'9' * 5000}"])
def test_a_range_of_many_digits_is_answered(wanted):
    assert answer(wanted)[0] in (200, 206, 416)


@pytest.mark.parametrize("wanted", ["", "bytes=0-", "bytes=-5"])
def test_of_an_empty_file_there_is_no_range(wanted):
    assert answer(wanted, b"")[0] == (416 if wanted else 200)


# Bodies


def read(content, most_mib=1.0, size=1000):
    """What `read_json` makes of a body that arrives in pieces, and how many of them it took."""
    pieces = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    taken = 0

    async def receive():
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": pieces[taken - 1], "more_body": taken < len(pieces)}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    return asyncio.run(read_json(request, most_mib)), taken


def refused(content, **keys):
    with pytest.raises(Refusal) as refusal:
        read(content, **keys)
    (told,) = refusal.value.args
    json.dumps(told.body, ensure_ascii=False).encode()
    return told.code, told.body["error"]["message"]


def test_an_object_is_read_from_its_pieces():
    row = {"prompt": "Kätzchen" * 1000, "tags": {"a": [1, None]}}
    assert read(json.dumps(row).encode())[0] == row
    assert read(json.dumps(row, ensure_ascii=False).encode(), size=7)[0] == row


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"a cat", b'{"prompt": \xff}', b'{"a": 1} x', b"{'prompt': 1}", b"9" * 5000, b"\0"],
)
def test_what_is_no_json_is_refused(content):
    code, message = refused(content)
    assert code == 400
    assert message.startswith("the body must be JSON: ")
    assert len(message) < 300


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000])
def test_deep_json_is_refused(content):
    code, message = refused(content)
    assert (code, message[:22]) == (400, "the body must be JSON:")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_json_lacks_is_refused_as_in_a_manifest(word):
    assert refused(f'{{"fps": {word}}}'.encode())[0] == 400


def test_half_a_character_is_refused_as_in_a_manifest():
    assert refused(rb'{"prompt": "a \ud800 cat"}')[0] == 400


@pytest.mark.parametrize(
    ("content", "kind"), [(b"[]", "list"), (b'"a"', "str"), (b"1", "int"), (b"null", "NoneType")]
)
def test_only_an_object_is_a_row(content, kind):
    code, message = refused(content)
    assert (code, kind in message) == (400, True)
    assert message.startswith("the body must be a JSON object, got ")


def test_a_body_may_have_as_many_bytes_as_are_allowed():
    row = json.dumps({"prompt": "a" * (2**20 - 14)}).encode()
    assert len(row) == 2**20
    assert read(row)[0]["prompt"].startswith("aa")
    assert refused(row + b" ") == (413, "the body is larger than serve.max_body_mib=1")


def test_a_large_body_is_not_read_to_its_end():
    pieces = 0

    async def endless():
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": bytes(2**16), "more_body": True}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, endless)
    with pytest.raises(Refusal):
        asyncio.run(read_json(request, 0.5))
    assert pieces == 9


def test_an_error_says_when_to_come_again():
    assert error(429, "full", 30, problems=[]).headers == {"Retry-After": "30"}
    assert error(400, "no").headers == {}
    assert error(400, "no", problems=[1]).body == {"error": {"code": 400, "message": "no", "problems": [1]}}


def test_only_a_key_becomes_part_of_a_path():
    assert is_key("0123456789abcdef" * 4)
    for text in ["", "a" * 63, "a" * 65, "A" * 64, "../" * 21 + "a", "a" * 63 + "\n", "\u0661" * 64]:
        assert not is_key(text)


# The backlog


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    return Store.open(
        request.getfixturevalue("s3_url") if request.param == "bucket" else str(tmp_path / "out")
    )


REQUEST = Wanted(
    task="t2v",
    prompt="Ein Kätzchen",
    negative_prompt="",
    width=64,
    height=48,
    num_frames=5,
    fps=16.0,
    seed=2**63 - 1,
    steps=4,
    shift=5.0,
    guidance=Guidance(high=5.0, low=4.0),
    solver="unipc",
    inputs={"image": ("ab" * 32,)},
)


def record(number):
    """Those of higher numbers have lower keys."""
    tags, sources = {"n": [number, None]}, {"ab" * 32: "s3://bucket/inputs/x"}
    key = f"{100 - number:064x}"
    return Record(key=key, ids=(f"r{number}",), request=REQUEST, tags=tags, sources=sources)


def accepted(number, priority=0, run="r"):
    return Accepted(record(number), priority, run)


def test_the_backlog_gives_back_what_was_put(store):
    backlog = Backlog(store)
    backlog.put(accepted(0, -7, "r1"))
    assert backlog.get(record(1).key) is None
    other = Backlog(Store.open(store.url))
    assert other.accepted_keys() == [record(0).key]
    assert other.get(record(0).key) == (record(0), -7, "r1")
    assert store.find("queue") == [f"queue/{record(0).key}.parquet"]


def test_what_was_put_first_is_told_first(store):
    backlog = Backlog(store)
    for number in range(3):
        backlog.put(accepted(number))
        time.sleep(1.1 if store.is_remote else 0.02)  # what the store's clock tells apart
    assert backlog.accepted_keys() == [record(number).key for number in range(3)]


def test_what_has_ended_is_not_in_the_backlog(store):
    backlog = Backlog(store)
    for number in range(3):
        backlog.put(accepted(number))
    backlog.remove(record(1).key)
    backlog.remove(record(1).key)
    backlog.remove("never")
    assert backlog.get(record(1).key) is None
    assert sorted(backlog.accepted_keys()) == sorted([record(0).key, record(2).key])
    for number in (0, 2):
        backlog.remove(record(number).key)
    assert backlog.accepted_keys() == []


def test_a_request_may_change_hands(store):
    backlog = Backlog(store)
    backlog.put(accepted(0, 1, "r1"))
    backlog.put(accepted(0, 1, "r2"))
    assert backlog.get(record(0).key) == (record(0), 1, "r2")
    assert len(backlog.accepted_keys()) == 1


def test_what_is_no_request_is_in_nobody_s_way(store):
    backlog = Backlog(store)
    backlog.put(accepted(0))
    store.write("queue/notes.txt", b"a person was here")
    store.write(f"queue/{record(1).key}.parquet", b"PAR1, but cut off")
    keys = backlog.accepted_keys()
    assert record(0).key in keys
    found = {key: backlog.get(key) for key in keys}
    assert [key for key, item in found.items() if item is not None] == [record(0).key]
