"""What a watcher sees: a table on a terminal, lines in a log, JSON for machines, or nothing."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from test_snapshot import DENOISE, SNAPSHOT

from wanray.live import GangView, Snapshot, live_line, live_page, show, view


def page(snapshot: Snapshot) -> str:
    console = Console(file=StringIO(), width=140)
    console.print(live_page(snapshot))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_page_has_the_counts_the_rates_and_every_gang() -> None:
    shown = page(SNAPSHOT)
    assert "4 of 10 committed, 3 failed (2 input, 1 model), 1 committed by others" in shown
    assert "60 min so far, ETA 20 min" in shown
    assert "12 clips/h now, 4 mean, 4 kB stored (3.33 B/s)" in shown
    row = next(line for line in shown.splitlines() if line.startswith("denoise"))
    assert row.split()[:7] == ["denoise", "4", "1", "5", "0", "75%", "2"]
    assert "abababab 3/8 2 s" in row
    assert "rebuilding" in shown


def test_of_many_gangs_the_page_tells_how_many_are_in_which_state() -> None:
    gangs = [
        GangView(worker=n, state="busy", key="cd" * 32, step=1, num_steps=8, step_s=1.0) for n in range(30)
    ]
    gangs[7] = replace(gangs[7], step_s=9.0)
    gangs[8] = GangView(worker=8, state="lost")
    shown = page(replace(SNAPSHOT, pools=(replace(DENOISE, gangs=tuple(gangs)),)))
    assert "29 busy, 1 lost; slowest 7: cdcdcdcd 1/8 9 s" in shown


def test_the_line_has_them_too() -> None:
    line = live_line(SNAPSHOT)
    assert line.startswith("4 of 10 committed, 3 failed")
    assert "encode=0/0/0/0 denoise=4/1/5/0" in line
    assert line.endswith("steps abababab 3/8 2 s")


@pytest.mark.parametrize(
    ("state", "words"), [("loading", "loading"), ("stopping", "stopping"), ("finished", "finished")]
)
def test_a_run_that_does_not_render_has_no_time_left(state: str, words: str) -> None:
    line = live_line(replace(SNAPSHOT, state=state))
    assert f"so far, {words}," in line
    assert "ETA" not in line


def test_until_the_first_clip_the_time_left_is_the_plan_s() -> None:
    line = live_line(Snapshot(run="r", state="rendering", total=3, elapsed_s=60.0, estimate_s=360.0))
    assert "ETA 5 min (plan)" in line
    assert "ETA unknown" in live_line(Snapshot(run="r", state="rendering", total=3))


def wait_until(condition: Callable[[], bool]) -> None:
    """A machine may be busy for a while; what never comes is a failure."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(view, "LINE_EVERY_S", 0.01)
    with caplog.at_level("INFO"), show(lambda: SNAPSHOT, "auto", StringIO()):
        wait_until(lambda: live_line(SNAPSHOT) in caplog.messages)


def test_a_terminal_gets_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=140)
    monkeypatch.setattr(view, "Console", lambda stderr: console)
    with show(lambda: SNAPSHOT, "auto", StringIO()):
        pass
    assert "abababab 3/8" in console.file.getvalue()  # type: ignore[attr-defined]


def test_machines_get_lines_of_json_and_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "JSON_EVERY_S", 0.01)
    out, last = StringIO(), replace(SNAPSHOT, committed=9)
    seen: list[Any] = [SNAPSHOT]
    with show(lambda: seen[-1], "json", out):
        wait_until(lambda: out.getvalue().count("\n") > 1)
        seen.append(last)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) > 2
    assert {line["event"] for line in lines} == {"progress"}
    assert (lines[0]["committed"], lines[-1]["committed"], lines[-1]["left"]) == (4, 9, 0)


def test_who_wants_quiet_gets_it(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    out = StringIO()
    with caplog.at_level("DEBUG"), show(lambda: SNAPSHOT, "quiet", out):
        time.sleep(0.1)
    assert (out.getvalue(), caplog.messages, capfd.readouterr()) == ("", [], ("", ""))
