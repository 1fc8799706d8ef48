"""Who waits where, counted from news that may come late."""

from wanray.engine.waiting import Waiting

POOLS = ("encode", "denoise", "decode")


def counts(waiting, left, in_work=()):
    found = waiting.counts(left, set(in_work))
    return [found[pool] for pool in POOLS]


def test_a_request_moves_from_queue_to_queue():
    waiting = Waiting(POOLS)
    assert counts(waiting, 2) == [2, 0, 0]
    waiting.taken("a")
    assert counts(waiting, 2, ["a"]) == [1, 0, 0]
    waiting.released("encode", "a", "done", 1.0)
    assert counts(waiting, 2) == [1, 1, 0]
    waiting.taken("a")
    waiting.released("denoise", "a", "done", 2.0)
    assert counts(waiting, 2) == [1, 0, 1]
    waiting.taken("a")
    waiting.released("decode", "a", "done", 3.0)
    assert counts(waiting, 2) == [1, 0, 0], "it is behind all pools and not counted yet"
    waiting.ended("a", 4.0)
    assert counts(waiting, 1) == [1, 0, 0]


def test_who_lost_its_worker_waits_for_another_one():
    waiting = Waiting(POOLS)
    waiting.taken("a")
    waiting.released("denoise", "a", "lost", 1.0)
    assert counts(waiting, 1) == [0, 1, 0]


def test_what_failed_or_was_left_alone_waits_for_nobody():
    waiting = Waiting(POOLS)
    for key, outcome in (("a", "failed"), ("b", "committed"), ("c", "stopped")):
        waiting.taken(key)
        waiting.released("encode", key, outcome, 1.0)
    assert counts(waiting, 4) == [1, 0, 0]
    for key in "abc":
        waiting.ended(key, 2.0)
    assert counts(waiting, 1) == [1, 0, 0]


def test_news_that_come_late_count_nobody_twice():
    waiting = Waiting(POOLS)
    waiting.taken("a")  # denoise has it already
    waiting.released("encode", "a", "done", 1.0)
    assert counts(waiting, 1, ["a"]) == [0, 0, 0]
    waiting.released("denoise", "a", "done", 2.0)
    assert counts(waiting, 1) == [0, 0, 1]


def test_what_has_ended_is_not_heard_of_again_until_it_begins_anew():
    waiting = Waiting(POOLS)
    waiting.ended("a", 5.0)
    waiting.taken("a")
    waiting.released("denoise", "a", "done", 4.9)
    assert counts(waiting, 0) == [0, 0, 0]
    waiting.released("encode", "a", "done", 6.0)
    assert counts(waiting, 1) == [0, 1, 0]
