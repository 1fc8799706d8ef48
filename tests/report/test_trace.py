"""The trace is one that Perfetto and chrome://tracing read."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from wanray.errors import StorageError
from wanray.report import write_trace

KEY = "0123456789abcdef" * 4
NEEDED = {"X": {"dur", "tid", "args"}, "i": {"s", "tid"}, "C": {"args"}, "M": {"args"}}
"""Fields by phase, besides name, ph, pid and ts (trace event format, "Event Descriptions")."""


def events() -> list[dict[str, Any]]:
    """Two gangs with two seats each; one is rebuilt, one request stays in work."""
    told: list[dict[str, Any]] = [{"event": "run_started", "ts": 1000.0, "counts": {"left": 3}}]
    for number, (worker, at_s) in enumerate(((0, 1001.0), (0, 1002.0), (1, 1002.5))):
        work = {"key": f"{number}{KEY[1:]}", "pool": "denoise", "worker": worker}
        told.append({"event": "dispatched", "ts": at_s, "attempt": 1, **work})
    told += [
        {"event": "released", "ts": 1004.25, "outcome": "done", "key": KEY, "pool": "denoise", "worker": 0},
        {"event": "committed", "ts": 1004.5, "key": KEY, "video": "v", "timings_s": {"denoise": 3.25}},
        {"event": "failed", "ts": 1004.0, "key": "1", "message": "NaN"},
        {
            "event": "gang",
            "ts": 1005.0,
            "pool": "denoise",
            "worker": 1,
            "state": "rebuilding",
            "detail": "died",
        },
        {"event": "gang", "ts": 1009.0, "pool": "denoise", "worker": 1, "state": "idle", "detail": "node b"},
    ]
    return told


@pytest.fixture
def trace(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "trace.json"
    assert write_trace(events(), path) == 3
    assert [item.name for item in tmp_path.iterdir()] == ["trace.json"]
    return json.loads(path.read_text())["traceEvents"]


def test_every_event_has_what_its_phase_needs(trace: list[dict[str, Any]]) -> None:
    for event in trace:
        assert {"name", "ph", "pid", "ts"} | NEEDED[event["ph"]] <= event.keys()
        assert isinstance(event["ts"], int)
        assert event["ts"] >= 0
    assert {event["ph"] for event in trace} == set(NEEDED)


def test_spans_carry_times_in_microseconds_and_their_key(trace: list[dict[str, Any]]) -> None:
    (span,) = [event for event in trace if event["name"] == KEY[:8]]
    assert (span["ts"], span["dur"]) == (1_000_000, 3_250_000)
    assert span["args"] == {"key": KEY, "attempt": 1, "outcome": "done"}


def test_processes_are_pools_and_threads_are_seats(trace: list[dict[str, Any]]) -> None:
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in trace if e["name"] == "thread_name"}
    pools = {e["pid"]: e["args"]["name"] for e in trace if e["name"] == "process_name"}
    assert sorted(pools.values()) == ["denoise", "run"]
    assert sorted(named.values()) == ["worker 0", "worker 0, seat 1", "worker 1", "worker 1, rebuilds"]
    assert len({tid for _, tid in named}) == len(named), "viewers take a thread's number for unique"
    for event in trace:
        if event["ph"] in "Xi":
            assert (event["pid"], event["tid"]) in named


def test_spans_of_a_thread_do_not_overlap(trace: list[dict[str, Any]]) -> None:
    threads: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in trace:
        if event["ph"] == "X":
            threads[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert sum(map(len, threads.values())) == 4
    for spans in threads.values():
        ordered = sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(ordered))


def test_rebuilding_is_a_span_and_its_ends_are_marked(trace: list[dict[str, Any]]) -> None:
    (span,) = [event for event in trace if event["name"] == "rebuilding" and event["ph"] == "X"]
    assert (span["ts"], span["dur"], span["args"]) == (5_000_000, 4_000_000, {"detail": "died"})
    marks = [(event["name"], event["args"]["detail"]) for event in trace if event["ph"] == "i"]
    assert marks == [("rebuilding", "died"), ("idle", "node b")]


def test_counters_go_forward(trace: list[dict[str, Any]]) -> None:
    counters: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in trace:
        if event["ph"] == "C":
            counters[event["name"]].append((event["ts"], event["args"]["clips"]))
    assert [value for _, value in counters["committed"]] == [0, 1, 1]
    assert [value for _, value in counters["failed"]] == [0, 0, 1]
    assert [value for _, value in counters["left"]] == [3, 2, 1]
    for values in counters.values():
        assert values == sorted(values, key=lambda item: item[0])


def test_a_name_in_gz_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    write_trace(events(), path)
    assert len(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]) > 10


def test_a_run_without_events_is_an_empty_trace(tmp_path: Path) -> None:
    assert write_trace([], tmp_path / "trace.json") == 0
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"][0]["name"] == "process_name"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the trace"):
        write_trace(events(), tmp_path / "absent" / "trace.json")
