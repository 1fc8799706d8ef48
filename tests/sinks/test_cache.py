"""What is kept comes back as it was or not at all, whatever befalls entries, store and other processes."""

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from wanray.errors import StorageError
from wanray.sinks import cache as cache_module
from wanray.sinks.cache import Cache, trim
from wanray.storage import Store

NAME = Cache.name("a name")
OTHER = Cache.name("another")
OVERHEAD = 32

USER = """
import random, sys
from wanray.sinks.cache import Cache
from wanray.storage import Store

def value(name, variant):  # as two machines round it: equal but for the last byte
    return bytes.fromhex(name) * (100 + 40 * int(name[:2], 16)) + variant

url, worker, num_rounds = sys.argv[1:]
cache, draw = Cache(Store.open(url), "texts"), random.Random(worker)
hits = wrong = 0
for number in range(int(num_rounds)):
    name = Cache.name(draw.choice(["shared", worker]), str(draw.randrange(8)))
    found = cache.get(name)
    if found is None:
        cache.put(name, value(name, worker.encode()))
    else:
        hits += 1
        wrong += found not in (value(name, b"1"), value(name, b"2"))
print(hits, wrong)
"""


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(str(tmp_path / "cache"))
    return Store.open(request.getfixturevalue("s3_url"))


@pytest.fixture(autouse=True)
def _nobody_was_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_warned", set())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every read and write of any store, which all fail: as long as this says so."""
    made: list[str] = []

    def fail(self: Store, path: str, *data: bytes) -> bytes:
        made.append(path)
        raise StorageError("the store is away")

    monkeypatch.setattr(Store, "read", fail)
    monkeypatch.setattr(Store, "write", fail)
    return made


def path_of(name: str, kind: str = "texts") -> str:
    return f"{kind}/{name[:2]}/{name}"


def end_pause(cache: Cache) -> None:
    cache._reads._asks_at_s = 0.0


def fill(store: Store, *, count: int, num_bytes: int) -> list[str]:
    """Paths of so many entries, the oldest first; each takes `num_bytes` of the store."""
    names = [Cache.name(str(number)) for number in range(count)]
    for number, name in enumerate(names):
        Cache(store, "texts").put(name, bytes(num_bytes - OVERHEAD))
        if not store.is_remote:
            os.utime(store.uri(path_of(name)), (number, number))
    stats = store.stats("")
    return sorted(map(path_of, names), key=lambda path: (stats[path][1], path))


def test_a_name_is_decided_by_each_part_and_by_their_order() -> None:
    variants = [(), ("",), ("a",), ("ab",), ("a", "b"), ("b", "a"), ('a","b',), ("a", "", "b"), ("\u00e4",)]
    assert len({Cache.name(*parts) for parts in variants}) == len(variants)
    assert Cache.name("a", "b") == "0473ef2dc0d324ab659d3580c1134e9d812035905c4781fdd6d529b0c6860e13"


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4000])
def test_what_was_put_comes_back(store: Store, data: bytes) -> None:
    cache = Cache(store, "texts")
    assert cache.get(NAME) is None
    cache.put(NAME, data)
    assert cache.get(NAME) == data
    assert Cache(Store.open(store.url), "texts").get(NAME) == data
    assert store.find("") == [path_of(NAME)]


def test_kinds_and_names_are_apart(store: Store) -> None:
    texts, conditions = Cache(store, "texts"), Cache(store, "conditions")
    texts.put(NAME, b"text")
    assert conditions.get(NAME) is None
    conditions.put(NAME, b"condition")
    assert (texts.get(NAME), conditions.get(NAME), texts.get(OTHER)) == (b"text", b"condition", None)


def test_the_last_of_equal_values_wins(store: Store) -> None:
    for data in (b"rounded up", b"rounded down"):
        Cache(store, "texts").put(NAME, data)
    assert Cache(store, "texts").get(NAME) == b"rounded down"


def test_a_name_that_no_one_made_is_a_mistake_of_ours(store: Store) -> None:
    for kind, name in (("texts", "../../clips/meta.json"), ("texts", NAME.upper()), ("videos", NAME)):
        with pytest.raises(AssertionError):
            Cache(store, kind).put(name, b"x")
    assert store.find("") == []


def test_what_is_damaged_or_cut_short_is_absent_and_healed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cache, data = Cache(store, "texts"), bytes(1000)
    cache.put(NAME, data)
    whole = store.read(path_of(NAME))
    assert len(whole) == len(data) + OVERHEAD
    places = (0, OVERHEAD - 1, OVERHEAD, len(whole) - 1)
    damaged = [whole[:place] + b"\x01" + whole[place + 1 :] for place in places]
    damaged += [whole[:length] for length in (0, 1, OVERHEAD, len(whole) - 1)]
    for entry in (*damaged, whole + b"\x00", data, whole[1:]):
        store.write(path_of(NAME), entry)
        assert cache.get(NAME) is None
    assert caplog.text.count(f"cache={store.uri(path_of(NAME))} is damaged") == len(caplog.records) == 11
    cache.put(NAME, data)
    assert cache.get(NAME) == data


def test_an_entry_at_the_place_of_another_is_absent(store: Store) -> None:
    cache = Cache(store, "texts")
    cache.put(NAME, b"one")
    cache.put(OTHER, b"other")
    one, other = store.read(path_of(NAME)), store.read(path_of(OTHER))
    store.write(path_of(NAME), other)
    store.write(path_of(OTHER), one)
    store.write(path_of(NAME, "conditions"), one)
    assert (cache.get(NAME), cache.get(OTHER), Cache(store, "conditions").get(NAME)) == (None, None, None)


def test_a_store_that_is_down_is_asked_once_and_told_once(
    calls: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    store = Store.open(str(tmp_path))
    caches = [Cache(store, kind) for kind in cache_module.KINDS]
    for _ in range(50):
        for cache in caches:
            assert cache.get(NAME) is None
            cache.put(NAME, b"x")
    assert len(calls) == 2 * len(caches), "one read and one write of each"
    assert [record.message for record in caplog.records] == [
        "the cache does not help for now, what it holds is made again: the store is away"
    ]


def test_a_store_that_came_back_helps_again(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cache = Cache(Store.open(str(tmp_path)), "texts")
    for num_calls in (1, 2, 3):
        assert (cache.get(NAME), cache.get(NAME), len(calls)) == (None, None, num_calls)
        end_pause(cache)
    monkeypatch.undo()
    cache.put(NAME, b"x")
    assert (cache.get(NAME), cache.get(NAME)) == (b"x", b"x")
    assert len(caplog.records) == 1


def test_one_of_many_threads_looks_whether_the_store_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(self: Store, path: str) -> bytes:
        calls.append(path)
        time.sleep(0.1)
        raise StorageError("the store is away")

    monkeypatch.setattr(Store, "read", fail)
    cache = Cache(Store.open(str(tmp_path)), "texts")
    assert cache.get(NAME) is None
    end_pause(cache)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(cache.get, [NAME] * 8)) == {None}
    assert len(calls) == 2


def test_the_longer_a_store_takes_to_fail_the_longer_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(self: Store, path: str) -> bytes:
        calls.append(path)
        time.sleep(0.05)
        raise StorageError("the store is away")

    monkeypatch.setattr(Store, "read", fail)
    monkeypatch.setattr(cache_module, "PAUSE_S", 0.0)
    cache, end_s = Cache(Store.open(str(tmp_path)), "texts"), time.monotonic() + 1
    while time.monotonic() < end_s:
        assert cache.get(NAME) is None
        time.sleep(0.005)
    assert 1 <= len(calls) <= 2


def test_an_endpoint_where_nobody_listens(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="wanray")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    cache = Cache(Store.open(s3_url), "texts")
    for _ in range(20):
        assert cache.get(NAME) is None
        cache.put(NAME, b"x")
    (record,) = caplog.records
    assert "127.0.0.1:9" in record.message


def test_what_may_only_be_read_still_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(Store.open(str(tmp_path)), "texts")
    cache.put(NAME, b"x")

    def refuse(self: Store, path: str, data: bytes) -> None:
        raise StorageError("read only")

    monkeypatch.setattr(Store, "write", refuse)
    for _ in range(3):
        cache.put(OTHER, b"y")
        assert (cache.get(NAME), cache.get(OTHER)) == (b"x", None)


def test_trim_removes_the_fewest_oldest(store: Store) -> None:
    paths = fill(store, count=6, num_bytes=100)
    for limit, removed in ((600, 0), (599, 1), (400, 1), (250, 2), (99, 2), (0, 0)):
        trimmed = trim(store, limit)
        assert (trimmed.entries, trimmed.bytes) == (len(paths), 100 * len(paths))
        assert (trimmed.removed, trimmed.removed_bytes) == (removed, 100 * removed)
        paths = paths[removed:]
        assert store.find("") == sorted(paths)
    assert paths == []


def test_trim_of_nothing(store: Store) -> None:
    trimmed = trim(store, 0)
    assert (trimmed.entries, trimmed.bytes, trimmed.removed, trimmed.foreign) == (0, 0, 0, 0)


def test_trim_looks_at_all_kinds_and_what_is_put_again_is_young(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for number, kind in enumerate(cache_module.KINDS):
        Cache(store, kind).put(NAME, b"x")
        os.utime(store.uri(path_of(NAME, kind)), (number, number))
    first, second, third = (path_of(NAME, kind) for kind in cache_module.KINDS)
    Cache(store, cache_module.KINDS[0]).put(NAME, b"y")
    assert Cache(store, cache_module.KINDS[1]).get(NAME) == b"x", "which does not make it young"
    trim(store, 2 * (OVERHEAD + 1))
    assert store.find("") == sorted((first, third))
    trim(store, OVERHEAD + 1)
    assert store.find("") == [first]
    assert not store.exists(second)


def test_trim_leaves_what_is_no_entry(store: Store) -> None:
    entry = path_of(NAME)
    foreign = [
        "notes.txt",
        NAME,
        f"clips/{NAME[:2]}/{NAME}",
        f"clips/{OTHER[:2]}/{OTHER}/meta.json",
        f"texts/{NAME}",
        f"texts/{'00' if NAME[:2] != '00' else '11'}/{NAME}",
        f"{entry}.json",
        f"{path_of(OTHER)}/video.mp4",
        f"below/{entry}",
        f"conditions/ab/AB{NAME[2:]}",
        f"conditions/{NAME[:2]}/{NAME[:-1]}",
    ]
    for path in (entry, *foreign):
        store.write(path, b"theirs")
    trimmed = trim(store, 0)
    assert (trimmed.entries, trimmed.removed, trimmed.foreign) == (1, 1, len(foreign))
    assert store.find("") == sorted(foreign)
    assert {store.read(path) for path in foreign} == {b"theirs"}


def test_trims_at_the_same_time_remove_no_more_than_one(store: Store) -> None:
    paths = fill(store, count=20, num_bytes=100)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: trim(store, 1000), range(4)))
    assert store.find("") == sorted(paths[10:])


def test_processes_use_it_while_others_trim(store: Store) -> None:
    with ExitStack() as stack:
        users = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", USER, store.url, worker, "80"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for worker in "12"
        ]
        removed = 0
        while any(user.poll() is None for user in users):
            removed += trim(store, 1_000_000).removed
        told = [user.communicate(timeout=60) for user in users]
    assert [errors for _, errors in told] == ["", ""], "no entry was damaged, no call failed"
    hits, wrong = zip(*(map(int, out.split()) for out, _ in told), strict=True)
    assert wrong == (0, 0)
    assert min(*hits, removed) > 0
