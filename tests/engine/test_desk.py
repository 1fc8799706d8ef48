"""Who is next at the endpoint: the desk alone, with a renderer whose records end when the test says so."""

import asyncio
import logging
from dataclasses import replace
from functools import wraps

import pytest

from wanray.engine.endpoint.desk import REMEMBERED, Desk, FullError, Status
from wanray.records import STOPPED, Clip, Record, Request
from wanray.registry import Guidance

REQUEST = Request(
    task="t2v",
    prompt="a cat",
    negative_prompt="",
    width=64,
    height=48,
    num_frames=5,
    fps=16.0,
    seed=1,
    steps=4,
    shift=5.0,
    guidance=Guidance(high=5.0, low=5.0),
    solver="unipc",
)
CLIP = Clip(
    path="clips/v.mp4", sha256="ab", bytes=1, codec="h264", width=64, height=48, num_frames=5, fps=16.0
)


def record(key):
    return Record(key=key, ids=(key,), request=REQUEST)


def done(key):
    return replace(record(key), clip=CLIP)


class Place:
    """A desk whose records are rendered when `finish` says so."""

    def __init__(self, seats=1, max_open=100):
        self.begun = []
        self.ended = []
        self.work = {}
        self.at_end = None
        self.desk = Desk(self._render, self._end, seats, max_open)

    async def _render(self, item):
        self.begun.append(item.key)
        self.work[item.key] = asyncio.get_running_loop().create_future()
        return await self.work[item.key]

    async def _end(self, item, is_cancelled):
        if self.at_end is not None:
            await self.at_end(item)
        self.ended.append((item.key, is_cancelled))

    def add(self, key, priority=0):
        self.desk.admit(record(key))
        self.desk.enqueue(key, priority)

    async def finish(self, key, result=None):
        """End the rendering of `key` with a record or an error, and let the desk see it."""
        future = self.work.pop(key)
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result or done(key))
        await settled()

    async def finish_all(self):
        while self.work:
            await self.finish(next(iter(self.work)))


async def settled():
    """Let the event loop do all that it can without the test."""
    for _ in range(20):
        await asyncio.sleep(0)


def of_loop(test):
    """The async test as one that pytest runs."""

    @wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 30))

    return run


@of_loop
async def test_higher_priorities_go_first_and_equal_ones_in_their_order():
    place = Place()
    for key, priority in [("a", 0), ("b", -1), ("c", 5), ("d", 0), ("e", 5), ("f", 7)]:
        place.add(key, priority)
    await settled()
    await place.finish_all()
    assert place.begun == ["a", "f", "c", "e", "d", "b"], "a was alone when it came"
    assert [key for key, _ in place.ended] == place.begun


@of_loop
async def test_no_more_are_rendered_at_once_than_there_are_seats():
    place = Place(seats=2)
    for key in "abcd":
        place.add(key)
    await settled()
    assert place.begun == ["a", "b"]
    assert [place.desk.status(key) for key in "abcde"] == [
        *[Status.IN_PROGRESS] * 2, *[Status.QUEUED] * 2, None
    ]  # fmt: skip
    await place.finish("b")
    assert place.begun == ["a", "b", "c"]
    assert place.desk.open_keys() == ["a", "c", "d"]
    await place.finish_all()
    assert (len(place.desk), place.desk.open_keys()) == (0, [])


@of_loop
async def test_more_than_max_open_are_refused_unless_they_were_promised():
    place = Place(max_open=2)
    place.add("a")
    place.desk.admit(record("b"))
    with pytest.raises(FullError, match=r"2 requests are open, as many as serve\.max_open"):
        place.desk.admit(record("c"))
    assert place.desk.status("c") is None
    place.desk.admit(record("d"), beyond=True)
    assert len(place.desk) == 3
    place.desk.forget("b")
    place.desk.forget("d")
    place.add("c")
    await settled()
    await place.finish("a")
    assert place.begun == ["a", "c"]


@of_loop
async def test_a_place_is_free_when_the_end_was_told():
    place = Place(max_open=1)
    place.add("a")
    seen = []

    async def look(item):
        seen.append(place.desk.status(item.key))

    place.at_end = look
    await settled()
    await place.finish("a")
    place.add("b")
    assert seen == [Status.IN_PROGRESS], "until it is stored, nobody else can tell of it"


@of_loop
async def test_a_waiting_one_that_is_cancelled_never_begins():
    place = Place()
    place.add("a")
    place.add("b")
    await settled()
    assert place.desk.cancel("b") is True
    assert (place.desk.status("b"), place.desk.is_open("b")) == (Status.CANCELLED, False)
    assert not place.desk.is_cancelled("b"), "it is not in the pools"
    assert place.desk.record("b") == record("b")
    await place.finish("a")
    assert (place.begun, place.ended) == (["a"], [("a", False)])


@of_loop
async def test_one_in_work_that_is_cancelled_keeps_its_seat_until_it_comes_back():
    place = Place()
    place.add("a")
    place.add("b")
    await settled()
    assert place.desk.cancel("a") is False
    assert place.desk.cancel("a") is False, "again says the same"
    assert (place.desk.status("a"), place.desk.is_open("a")) == (Status.CANCELLED, True)
    assert place.desk.is_cancelled("a")
    assert place.begun == ["a"]
    await place.finish("a", record("a").skip(STOPPED))
    assert place.ended == [("a", True)]
    assert (place.desk.status("a"), place.desk.is_open("a")) == (Status.CANCELLED, False)
    assert place.begun == ["a", "b"]


@of_loop
async def test_one_that_was_done_when_it_was_cancelled_is_not_cancelled():
    place = Place()
    place.add("a")
    await settled()
    place.desk.cancel("a")
    await place.finish("a")
    assert place.ended == [("a", False)]
    assert place.desk.status("a") is None, "the store tells that it is completed"


@of_loop
async def test_what_was_cancelled_can_be_asked_for_again():
    place = Place()
    for key in "ab":
        place.add(key)
    await settled()
    place.desk.cancel("b")
    place.add("b")
    assert place.desk.status("b") is Status.QUEUED
    await place.finish("a")
    assert place.begun == ["a", "b"]
    await place.finish("b")
    assert place.ended == [("a", False), ("b", False)]
    assert place.begun == ["a", "b"], "its former place in the queue is nobody's"


@of_loop
async def test_who_comes_again_stands_where_its_new_priority_says():
    place = Place()
    place.add("a")
    place.add("b", 9)
    place.add("c", 5)
    await settled()
    place.desk.cancel("b")
    place.add("b", 1)
    await place.finish_all()
    assert place.begun == ["a", "c", "b"]


@of_loop
async def test_who_comes_again_does_not_begin_before_it_is_enqueued():
    place = Place()
    place.add("a")
    place.add("b")
    await settled()
    place.desk.cancel("b")
    place.desk.admit(record("b"))  # and is being stored, which may fail
    await place.finish("a")
    assert place.begun == ["a"]
    place.desk.forget("b")
    await settled()
    assert place.begun == ["a"]


@of_loop
async def test_only_what_is_open_can_be_cancelled():
    place = Place()
    place.add("a")
    await settled()
    await place.finish("a")
    for key in ("a", "never"):
        with pytest.raises(KeyError):
            place.desk.cancel(key)


@of_loop
async def test_one_that_is_cancelled_while_it_is_stored_does_not_begin():
    place = Place()
    place.desk.admit(record("a"))
    assert place.desk.cancel("a") is True
    place.desk.enqueue("a", 0)
    await settled()
    assert place.begun == []
    assert place.desk.status("a") is Status.CANCELLED


@of_loop
async def test_what_is_forgotten_was_never_there():
    place = Place()
    place.desk.admit(record("a"))
    assert place.desk.status("a") is Status.QUEUED
    place.desk.forget("a")
    place.desk.forget("a")
    assert (place.desk.status("a"), place.desk.record("a"), len(place.desk)) == (None, None, 0)


@of_loop
async def test_not_more_cancelled_ones_are_remembered_than_fit():
    place = Place(max_open=REMEMBERED + 10)
    keys = [f"{number:04d}" for number in range(REMEMBERED + 5)]
    place.add("first")
    for key in keys:
        place.add(key)
    for key in keys:
        place.desk.cancel(key)
    assert [place.desk.status(key) for key in keys[:5]] == [None] * 5
    assert {place.desk.status(key) for key in keys[5:]} == {Status.CANCELLED}


@of_loop
async def test_after_an_error_nothing_more_begins(caplog):
    place = Place(seats=2)
    for key in "abc":
        place.add(key)
    await settled()
    with caplog.at_level(logging.CRITICAL, "wanray"):
        await place.finish("a", RuntimeError("the pools are gone"))
    assert str(place.desk.error) == "the pools are gone"
    assert place.ended == []
    await place.finish("b")
    assert place.begun == ["a", "b"]
    assert place.ended == [("b", False)]
    assert place.desk.status("c") is Status.QUEUED
    assert place.desk.status("a") is None, "the backlog tells of it"


@of_loop
async def test_an_end_that_cannot_be_stored_is_an_error_too(caplog):
    place = Place()
    place.add("a")
    place.add("b")

    async def fail(item):
        raise OSError("the store is away")

    place.at_end = fail
    await settled()
    with caplog.at_level(logging.CRITICAL, "wanray"):
        await place.finish("a")
    assert isinstance(place.desk.error, OSError)
    assert place.begun == ["a"]


@of_loop
async def test_closing_begins_nothing_and_waits_for_what_is_in_work():
    place = Place(seats=2)
    for key in "abcd":
        place.add(key)
    await settled()
    closing = asyncio.ensure_future(place.desk.closed())
    await settled()
    await place.finish("a", record("a").skip(STOPPED))
    assert not closing.done()
    place.add("late")
    await place.finish("b")
    await asyncio.wait_for(closing, 5)
    assert place.begun == ["a", "b"]
    assert place.ended == [("a", False), ("b", False)]
    assert place.desk.open_keys() == ["c", "d", "late"]


@of_loop
async def test_closing_waits_for_the_end_to_be_told_though_an_error_came(caplog):
    place = Place(seats=2)
    for key in "ab":
        place.add(key)
    await settled()
    closing = asyncio.ensure_future(place.desk.closed())
    with caplog.at_level(logging.CRITICAL, "wanray"):
        await place.finish("a", RuntimeError("gone"))
    assert not closing.done()
    await place.finish("b")
    await asyncio.wait_for(closing, 5)
    assert place.ended == [("b", False)]


@of_loop
async def test_an_idle_desk_closes_at_once():
    place = Place()
    await asyncio.wait_for(place.desk.closed(), 5)
    place.add("a")
    await settled()
    assert place.begun == []
