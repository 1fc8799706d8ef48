"""What becomes of a record at the end: finished, another round, or the end of the run."""

from dataclasses import replace

import pytest

from wanray.config import FaultsConfig
from wanray.engine.job import _records
from wanray.engine.monitor import Monitor
from wanray.engine.rounds import Rounds
from wanray.errors import EngineError, FailureCause, FailureClass
from wanray.records import Clip, FailedTry, Record, Request
from wanray.registry import Guidance
from wanray.sinks.events import EventLog, read_events
from wanray.sinks.ledger import Ledger
from wanray.storage import Store

REQUEST = Request(
    task="t2v", prompt="p", negative_prompt="", width=64, height=64, num_frames=5, fps=16.0, seed=1, steps=2,
    shift=5.0, guidance=Guidance(high=1.0, low=1.0), solver="unipc",
)  # fmt: skip
CLIP = Clip(path="p", sha256="s", bytes=1, codec="h264", width=64, height=64, num_frames=5, fps=16.0)
STORE_AWAY = FailedTry(
    stage="decode",
    failure_class=FailureClass.INFRASTRUCTURE,
    message="store is away",
    cause=FailureCause.STORAGE,
)
BROKEN = FailedTry(stage="denoise", failure_class=FailureClass.MODEL, message="no")


@pytest.fixture
def monitor(tmp_path):
    store = Store.open(str(tmp_path))
    monitor = Monitor(Ledger(store), EventLog(store, "run"), "run", ["encode", "denoise", "decode"], 9)
    yield monitor
    monitor.close()


def record(number):
    return Record(key=f"{number:064x}", ids=(str(number),), request=REQUEST, tags={"a": 1}, payload=b"x")


def test_what_may_pass_gets_rounds_and_then_its_failure(monitor):
    rounds = Rounds(monitor, FaultsConfig(max_rounds=2))
    store = monitor.ledger.store
    rounds.finish(record(1).failed(STORE_AWAY))
    rounds.finish(record(2).failed(BROKEN))
    rounds.finish(replace(record(3), clip=CLIP))
    assert monitor.ledger.failures() == [record(2).key]
    for tried in (1, 2):
        (again,) = _records(store, rounds.next_parts(store))
        assert again == replace(record(1), payload=b"", tries=(STORE_AWAY,) * tried)
        rounds.finish(again.failed(STORE_AWAY))
    assert rounds.next_parts(store) == []
    failure = monitor.ledger.read_failure(record(1).key)
    assert failure is not None
    assert (failure["attempts"], failure["class"], failure["cause"]) == (3, "infrastructure", "storage")
    assert [item["message"] for item in failure["causes"]] == ["store is away"] * 3
    assert (monitor.committed, monitor.failed) == (1, 2)


def test_what_another_run_holds_is_asked_for_again_and_then_left_to_it(monitor):
    rounds = Rounds(monitor, FaultsConfig(max_rounds=1))
    rounds.finish(record(1).skip("claimed"))
    rounds.finish(record(2).skip("committed"))
    (again,) = _records(monitor.ledger.store, rounds.next_parts(monitor.ledger.store))
    rounds.finish(again.skip("claimed"))
    assert monitor.left_to_others == {"claimed": 1, "committed": 1}
    assert monitor.ledger.failures() == []


def test_a_run_is_quiet_when_all_that_was_denoised_has_arrived(monitor):
    rounds = Rounds(monitor, FaultsConfig())
    keys = [record(number).key for number in range(3)]
    for key in keys:
        monitor.dispatched("denoise", key, 0, ts=0.0)
        assert not monitor.is_quiet
        monitor.released("denoise", key, 0, "done", ts=0.0)
    monitor.released("denoise", keys[0], 0, "done", ts=0.0)  # done again: its result was lost
    for number in range(2):
        rounds.finish(replace(record(number), clip=CLIP))
        assert not monitor.is_quiet
    rounds.finish(record(2).failed(STORE_AWAY))
    assert monitor.is_quiet
    rounds.finish(replace(record(4), clip=CLIP))  # its release is told later
    monitor.released("denoise", record(4).key, 0, "done", ts=0.0)
    assert monitor.is_quiet
    rounds.finish(record(5).skip("stopped"))
    assert not monitor.left_to_others


def test_a_run_that_only_fails_ends(monitor):
    rounds = Rounds(monitor, FaultsConfig(max_rounds=0, stop_after=3))
    for number in range(2):
        rounds.finish(record(number).failed(STORE_AWAY))
    rounds.finish(replace(record(8), clip=CLIP))
    for number in range(2, 4):
        rounds.finish(record(number).failed(STORE_AWAY))
    rounds.finish(record(7).failed(BROKEN))
    with pytest.raises(EngineError, match=r"3 requests in a row .*faults.stop_after.*decode: store is away"):
        rounds.finish(record(5).failed(STORE_AWAY))


def test_events_tell_why_a_record_was_put_off(monitor):
    rounds = Rounds(monitor, FaultsConfig())
    rounds.finish(record(1).failed(STORE_AWAY))
    monitor.events.flush()
    (event,) = read_events(monitor.ledger.store, "run")
    assert (event["event"], event["key"], event["cause"]) == ("put_off", record(1).key, "storage")
