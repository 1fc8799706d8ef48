"""Several runs, one manifest: each key has one owner, and the dead own nothing."""

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from wanray.errors import StorageError
from wanray.sinks.claims import Claims, heartbeat
from wanray.storage import Store

EXPIRES_S = 3.0
KEY = "ab" * 32

RACE = """
import sys
from wanray.sinks.claims import Claims
from wanray.storage import Store
url, run = sys.argv[1:]
store = Store.open(url)
store.write(f"runs/{run}/alive", b"")
claims = Claims(store, run, 60)
print("ready", flush=True)
sys.stdin.readline()
print(*[key for key in map(str, range(20)) if claims.take(key) is None])
"""


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(str(tmp_path / "out"))
    return Store.open(request.getfixturevalue("s3_url"))


def alive(store: Store, *runs: str) -> list[Claims]:
    """The claims of runs that gave a sign of life now."""
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda run: store.write(f"runs/{run}/alive", b""), runs))
    return [Claims(store, run, EXPIRES_S) for run in runs]


def pass_time(store: Store, *runs: str) -> None:
    """Let the claims of all others expire, by the clock of the store."""
    time.sleep(EXPIRES_S + 1.1)  # S3 counts whole seconds
    alive(store, *runs)


def test_the_first_has_it_and_keeps_it(store: Store) -> None:
    one, other = alive(store, "one", "other")
    assert (one.take(KEY), one.take(KEY)) == (None, None)
    assert other.take(KEY) == "one"
    other.release(KEY)
    assert other.take(KEY) == "one", "only its owner can release it"


def test_what_is_released_is_free(store: Store) -> None:
    one, other = alive(store, "one", "other")
    one.release(KEY)
    for owner, loser in ((one, other), (other, one), (one, other)):
        assert owner.take(KEY) is None
        assert loser.take(KEY) is not None
        owner.release(KEY)
        owner.release(KEY)


def test_a_run_that_went_without_a_word_is_free_at_once(store: Store) -> None:
    with heartbeat(store, "one", EXPIRES_S):
        assert Claims(store, "one", EXPIRES_S).take(KEY) is None
    (other,) = alive(store, "other")
    assert other.take(KEY) is None


def test_the_claims_of_the_dead_have_one_heir_and_a_zombie_is_told(store: Store) -> None:
    (dead,) = alive(store, "dead")
    assert dead.take(KEY) is None
    names = [f"run{number}" for number in range(6)]
    heirs = alive(store, *names)
    assert {heir.take(KEY) for heir in heirs} == {"dead"}
    pass_time(store, *names)
    with ThreadPoolExecutor(6) as threads:
        told = list(threads.map(lambda heir: heir.take(KEY), heirs))
    (owner,) = [name for name, answer in zip(names, told, strict=True) if answer is None]
    assert set(told) == {None, owner}
    alive(store, "dead")
    alive(store, owner)
    assert dead.take(KEY) == owner
    dead.release(KEY)
    assert dead.take(KEY) == owner


def test_a_heart_that_beats_keeps_its_claims(store: Store) -> None:
    with heartbeat(store, "one", EXPIRES_S):
        assert Claims(store, "one", EXPIRES_S).take(KEY) is None
        (other,) = alive(store, "other")
        pass_time(store, "other")
        assert other.take(KEY) == "one"


@pytest.mark.parametrize("skew_s", [-1e6, 1e6])
def test_the_clocks_of_machines_do_not_matter(
    store: Store, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = alive(store, "one", "other")
    assert one.take(KEY) is None
    if "://" not in store.url:  # S3 itself refuses requests of another time
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + skew_s)
    assert other.take(KEY) == "one"
    assert one.take(KEY) is None


def test_threads_race_for_each_key_and_one_wins(store: Store) -> None:
    names = [f"run{number}" for number in range(6)]
    claims = alive(store, *names)
    with ThreadPoolExecutor(6) as threads:
        for key in map(str, range(2)):
            told = list(threads.map(lambda one, key=key: one.take(key), claims))
            (owner,) = [name for name, answer in zip(names, told, strict=True) if answer is None]
            assert set(told) == {None, owner}


def test_processes_race_for_each_key_and_one_wins(store: Store) -> None:
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACE, store.url, f"run{number}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(3)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        won = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert sorted((key for keys in won for key in keys), key=int) == [str(key) for key in range(20)]


def test_a_lost_create_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = alive(store, "one")

    def create(path: str, data: bytes) -> bool:
        raise StorageError("cannot create")

    monkeypatch.setattr(store, "create", create)
    with pytest.raises(StorageError, match="cannot create"):
        one.take(KEY)


def test_the_heart_beats_on_when_the_store_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    write, failures = store.write, iter(range(2))

    def failing(path: str, data: bytes) -> None:
        if next(failures, None) is not None:
            raise StorageError("the store is away")
        write(path, data)

    with heartbeat(store, "one", 0.4):
        store.delete("runs/one/alive")
        monkeypatch.setattr(store, "write", failing)
        deadline_s = time.monotonic() + 5
        while not store.exists("runs/one/alive"):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    assert "run=one cannot give a sign of life" in caplog.text
    assert not store.exists("runs/one/alive")
