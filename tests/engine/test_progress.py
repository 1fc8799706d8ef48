"""What a watcher sees: counts per pool, steps per gang, lines where there is no terminal."""

import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from wanray.engine import progress
from wanray.engine.monitor import Monitor
from wanray.engine.progress import progress_line, show_progress
from wanray.errors import FailureClass
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
RECORD = Record(key="ab" * 32, ids=("a",), request=REQUEST)
POOLS = ["encode", "denoise", "decode"]


@pytest.fixture
def monitor(tmp_path):
    store = Store.open(str(tmp_path))
    monitor = Monitor(Ledger(store), EventLog(store, "run"), "run", POOLS, 4)
    yield monitor
    monitor.close()


def in_the_middle(monitor):
    """Four requests: one committed, one failed, one at step 3 of 8, one waiting."""
    for number in range(4):
        monitor.dispatched("encode", f"{number}" * 64, 0, ts=0.0)
        monitor.released("encode", f"{number}" * 64, 0, "done", ts=0.5)
    for number in range(2):
        monitor.dispatched("denoise", f"{number}" * 64, 0, ts=1.0)
        monitor.released("denoise", f"{number}" * 64, 0, "failed" if number else "done", ts=2.0)
    monitor.dispatched("denoise", "cd" * 32, 0, ts=3.0)
    monitor.stepped("denoise", 0, "cd" * 32, 3, 8, ts=4.0)
    monitor.finished(replace(RECORD, clip=CLIP))
    monitor.finished(
        RECORD.failed(FailedTry(stage="denoise", failure_class=FailureClass.MODEL, message="no"))
    )


def test_the_line_has_the_counts(monitor):
    in_the_middle(monitor)
    line = progress_line(monitor)
    assert line.startswith("1 of 4 committed, 1 failed, ETA ")
    assert "encode=4/0/0/0 denoise=1/1/1/1 decode=0/0/1/0" in line
    assert line.endswith("steps cdcdcdcd 3/8")


def test_a_terminal_gets_a_table(monitor):
    in_the_middle(monitor)
    console = Console(file=StringIO(), force_terminal=True, width=100)
    with show_progress(monitor, console):
        pass
    shown = console.file.getvalue()
    assert "cdcdcdcd 3/8" in shown
    assert "queued" in shown


def test_a_pipe_gets_lines(monitor, monkeypatch, caplog):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.01)
    with caplog.at_level("INFO"), show_progress(monitor, Console(file=StringIO())):
        time.sleep(0.3)
    assert "0 of 4 committed, 0 failed, ETA unknown" in caplog.text


def test_events_and_failures_are_stored(monitor, tmp_path):
    in_the_middle(monitor)
    monitor.close()
    names = [event["event"] for event in read_events(Store.open(str(tmp_path)), "run")]
    assert names.count("dispatched") == 4 + 3
    assert names[-2:] == ["committed", "failed"]
    failure = monitor.ledger.read_failure(RECORD.key)
    assert (failure["class"], failure["message"], failure["ids"]) == ("model", "no", ["a"])
