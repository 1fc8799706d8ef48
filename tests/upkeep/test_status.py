"""What is told of an output and its runs."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from wanray.errors import FailureClass
from wanray.live import Snapshot
from wanray.records import FailedTry, Failure
from wanray.sinks.ledger import Ledger
from wanray.storage import Store
from wanray.upkeep.runs import RunView, read_runs
from wanray.upkeep.status import read_status


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Store.open(str(tmp_path / "out")))


def tell(ledger: Ledger, run: str, ago_s: float = 0.0, **fields: Any) -> None:
    """Store what a run tells of itself, so many seconds ago."""
    path = f"runs/{run}/live.json"
    ledger.store.write(path, json.dumps(Snapshot(run=run, **fields).to_json()).encode())
    silence(ledger, path, ago_s)


def start(ledger: Ledger, run: str, ago_s: float = 0.0) -> None:
    path = f"runs/{run}/config.yaml"
    ledger.store.write(path, b"")
    silence(ledger, path, ago_s)


def silence(ledger: Ledger, path: str, ago_s: float) -> None:
    moment_s = time.time() - ago_s
    os.utime(Path(ledger.store.url, path), (moment_s, moment_s))


def view(ledger: Ledger) -> RunView:
    return read_runs(ledger.store, time.time(), 1)[0]


def test_a_finished_output(output: Any) -> None:
    before = output.tree()
    status = read_status(output.ledger)
    assert output.tree() == before, "nothing stays behind"
    sizes = [output.meta(key)["video"]["bytes"] for key in output.keys]
    assert (status.committed, status.num_indexed, status.bytes) == (3, 3, sum(sizes))
    assert (status.failures.count, status.failures.num_read) == (1, 1)
    assert status.failures.kinds == [{"class": "input", "cause": "error", "count": 1}]
    assert "width" in status.failures.messages[0]["message"]
    (run,) = status.runs
    assert (run.run, run.state, run.exit_code) == ("first", "finished", 2)
    assert (run.committed, run.failed) == (3, 1)
    assert run.clips_per_hour is not None
    assert run.silent_s < 600


def test_clips_are_counted_without_an_index(local_output: Any) -> None:
    for name in local_output.store.names("index"):
        local_output.store.delete(f"index/{name}")
    status = read_status(local_output.ledger)
    assert (status.committed, status.num_indexed, status.bytes) == (3, 0, 0)


def test_an_index_that_is_damaged_is_left_out(local_output: Any, caplog: pytest.LogCaptureFixture) -> None:
    local_output.store.write("index/broken-00000.parquet", b"PAR1 and no more")
    assert read_status(local_output.ledger).num_indexed == 3
    assert "wanray index" in caplog.text


def test_a_running_run(ledger: Ledger) -> None:
    start(ledger, "r")
    begun = view(ledger)
    assert (begun.state, begun.committed, begun.total) == ("running", 0, None), "it waits for workers"
    tell(
        ledger,
        "r",
        total=100,
        committed=14,
        failed=1,
        invalid=2,
        elapsed_s=7200.0,
        recent_clips=3,
        recent_s=450.0,
    )
    run = view(ledger)
    assert (run.state, run.committed, run.failed, run.total) == ("running", 14, 3, 100)
    assert (run.clips_per_hour, run.recent_clips_per_hour) == (7.0, 24.0)
    assert run.eta_s == pytest.approx(85 * 150)


def test_a_run_that_was_killed(ledger: Ledger) -> None:
    start(ledger, "r", 7200)
    tell(ledger, "r", 1000, total=9, committed=1, elapsed_s=3600.0, recent_clips=1, recent_s=600.0)
    ledger.store.write("runs/r/alive", b"")
    silence(ledger, "runs/r/alive", 60)
    assert view(ledger).state == "running", "its store failed for a while, but it gives signs of life"
    silence(ledger, "runs/r/alive", 900)
    ledger.store.write("runs/r/config.yaml", b"faults: {claim_expires_s: 1200.0}")
    silence(ledger, "runs/r/config.yaml", 7200)
    assert view(ledger).state == "running", "its claims have not expired"
    ledger.store.delete("runs/r/alive")
    tell(ledger, "r", 3600, total=9, committed=1, elapsed_s=3600.0, recent_clips=1, recent_s=600.0)
    run = view(ledger)
    assert run.state == "ended without a word"
    assert (run.committed, run.clips_per_hour, run.recent_clips_per_hour, run.eta_s) == (1, 1.0, None, None)
    assert run.silent_s == pytest.approx(3600, abs=10)


def test_a_run_that_goes_on_under_its_name_is_counted_from_there(ledger: Ledger) -> None:
    start(ledger, "r", 100)
    tell(ledger, "r", 50, total=9, committed=1, elapsed_s=3600.0, state="finished")
    summary = {"run": "r", "committed": 1, "failed": 0, "invalid": 0, "seconds": 3600.0, "exit_code": 3}
    ledger.store.write("runs/r/summary.json", json.dumps(summary | {"error": "no nodes"}).encode())
    silence(ledger, "runs/r/summary.json", 50)
    run = view(ledger)
    assert (run.state, run.exit_code, run.error, run.clips_per_hour) == ("finished", 3, "no nodes", 1.0)
    start(ledger, "r", 10)
    run = view(ledger)
    assert (run.state, run.committed, run.total) == ("running", 0, None), "what the earlier one told is old"
    tell(ledger, "r", 5, total=8)
    run = view(ledger)
    assert (run.state, run.committed, run.total, run.exit_code) == ("running", 0, 8, None)


def test_the_newest_runs_come_first(ledger: Ledger) -> None:
    for number in range(12):
        start(ledger, f"run-{number:02d}", 1000.0 + number)
    status = read_status(ledger)
    assert [run.run for run in status.runs] == [f"run-{number:02d}" for number in range(10)]
    assert status.num_runs == 12


def test_many_failures_are_sampled(ledger: Ledger) -> None:
    start(ledger, "r")
    for number in range(450):
        message = f"row {number}: took {number} GiB too many"
        failed = FailedTry(stage="denoise", failure_class=FailureClass.MODEL, message=message)
        failure = Failure(stage="denoise", failure_class=FailureClass.MODEL, message=message, tries=(failed,))
        ledger.write_failure(f"{number:064x}", ["1"], failure, "r", None)
    failures = read_status(ledger).failures
    assert failures.count == 450
    assert failures.num_read == 150
    assert failures.kinds == [{"class": "model", "cause": "error", "count": 150}]
    assert failures.messages == [{"message": "row 0: took 0 GiB too many", "count": 150}]


def test_an_older_failure_record_is_counted(ledger: Ledger) -> None:
    start(ledger, "r")
    ledger.store.write(f"failures/{'a' * 64}.json", json.dumps({"class": "model", "message": "NaN"}).encode())
    assert read_status(ledger).failures.kinds == [{"class": "model", "cause": "unknown", "count": 1}]


def test_the_command_prints_for_people_and_machines(local_output: Any, run_cli: Any) -> None:
    local_output.store.write("runs/second/config.yaml", b"")
    code, out, _ = run_cli("status", local_output.url)
    assert code == 0
    assert "3 committed" in out
    assert "1 input (error)" in out
    assert "finished, exit code 2" in out
    assert "running" in out
    code, out, _ = run_cli("status", local_output.url, "--json")
    status = json.loads(out)
    assert (code, status["committed"], status["num_runs"]) == (0, 3, 2)
    assert {run["run"]: run["state"] for run in status["runs"]} == {"first": "finished", "second": "running"}


def test_an_output_that_is_only_begun(ledger: Ledger, run_cli: Any) -> None:
    ledger.store.write("index/notes", b"")
    ledger.store.delete("index/notes")
    ledger.store.write(f"failures/{'a' * 64}.json", b"{}")
    code, out, _ = run_cli("status", ledger.store.url)
    assert code == 0
    assert "0 committed" in out
    assert "unknown (unknown)" in out
    assert out.splitlines()[-1].split() == ["runs", "none"]
