"""A run followed from another process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wanray.errors import ConfigError
from wanray.live import Snapshot
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.storage import Store
from wanray.upkeep.watch import Follower

SUMMARY = {"run": "night", "committed": 4, "failed": 1, "invalid": 0, "seconds": 60.0, "exit_code": 2}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(Store.open(str(tmp_path / "out")))
    ledger.store.write("runs/night/config.yaml", b"")
    return ledger


def tell(ledger: Ledger, run: str = "night", **fields: Any) -> None:
    values = Snapshot(run=run, **fields).to_json()
    ledger.store.write(f"runs/{run}/live.json", json.dumps(values).encode())


def finish(ledger: Ledger, **fields: Any) -> None:
    ledger.store.write("runs/night/summary.json", json.dumps(SUMMARY | fields).encode())


def test_it_sees_what_the_run_tells(ledger: Ledger) -> None:
    follower = Follower(ledger)
    assert (follower.run, follower.is_running, follower.snapshot.total) == ("night", True, 0)
    tell(ledger, total=5, committed=3)
    follower.poll()
    assert (follower.snapshot.total, follower.snapshot.committed) == (5, 3)
    finish(ledger)
    follower.poll()
    assert (follower.is_running, follower.exit_code) == (False, 2)


def test_what_goes_wrong_from_now_on_is_logged(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    log, key = EventLog(ledger.store, "night"), "ab" * 32
    log.emit("failed", key=key, stage="encode", failure_class="input", message="long ago")
    log.flush()
    follower = Follower(ledger)
    log.emit("committed", key=key)
    log.emit("gang", pool="denoise", worker=3, state="idle", detail="node:0")
    log.emit("gang", pool="denoise", worker=3, state="rebuilding", detail="its node died")
    log.emit("failed", key=key, stage="denoise", failure_class="model", message="NaN in the latents")
    log.flush()
    follower.poll()
    follower.poll()
    assert caplog.messages == [
        "gang 3 of denoise is rebuilding: its node died",
        "failed key=abababababab (denoise, model): NaN in the latents",
    ]


def test_a_run_that_fell_silent_can_be_resumed(ledger: Ledger) -> None:
    silent_s = time.time() - 3600
    os.utime(Path(ledger.store.url, "runs/night/config.yaml"), (silent_s, silent_s))
    follower = Follower(ledger)
    assert (follower.is_running, follower.exit_code) == (False, 3)


def test_an_earlier_run_can_be_named(ledger: Ledger) -> None:
    ledger.store.write("runs/later/config.yaml", b"")
    later_s = time.time() + 60
    os.utime(Path(ledger.store.url, "runs/later/config.yaml"), (later_s, later_s))
    assert Follower(ledger).run == "later"
    assert Follower(ledger, "night").run == "night"
    with pytest.raises(ConfigError, match=r"--run noon is no run of .*: the newest are later, night"):
        Follower(ledger, "noon")


def test_an_output_without_runs(tmp_path: Path, run_cli: Any) -> None:
    (tmp_path / "clips").mkdir()
    code, _, err = run_cli("watch", tmp_path)
    assert code == 1
    assert "has no runs yet" in err


def test_the_command_ends_as_the_run_does(ledger: Ledger, run_cli: Any) -> None:
    tell(ledger, total=5, committed=4, failed=1, state="finished")
    finish(ledger, error="no nodes", exit_code=3)
    code, out, _ = run_cli("watch", ledger.store.url)
    assert code == 3
    assert "4 of 5 committed, 1 failed" in out
    assert out.splitlines()[-1] == "run night finished, exit code 3: no nodes"
    code, out, _ = run_cli("watch", ledger.store.url, "--json")
    assert [json.loads(line)["committed"] for line in out.splitlines()] == [4]


def test_from_another_process_while_the_run_goes_on(ledger: Ledger) -> None:
    tell(ledger, total=5, committed=3)
    command = [Path(sys.executable).with_name("wanray"), "watch", ledger.store.url]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(5)
        assert watcher.poll() is None
        tell(ledger, total=5, committed=5, state="finished")
        finish(ledger, committed=5, failed=0, exit_code=0)
        out, _ = watcher.communicate(timeout=60)
    finally:
        watcher.kill()
    assert watcher.returncode == 0
    assert "5 of 5 committed" in out
