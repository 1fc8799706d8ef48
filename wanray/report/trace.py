"""A run as a Chrome trace, for Perfetto or chrome://tracing. Knows the format; `spans` tells who worked when.

A process is a pool, a thread one seat of a worker. Written as it is read, so memory does not grow.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from wanray.errors import StorageError
from wanray.report.spans import Span, Spans

RUN_PID = 1
_REBUILDS = "rebuilds"
"""The thread of a worker beside those of its seats."""
_FIRST_TID = 1000
"""Unlike any process: viewers take a thread of its process's number for the main one."""
_SHOWN_KEY = 8


def write_trace(entries: Iterable[dict[str, Any]], path: Path) -> int:
    """Write the trace of a run's events to `path`, packed if its name ends in `.gz`; returns how many spans.

    Raises:
        StorageError: the file cannot be written.
    """
    unfinished = path.with_name(f".unfinished-{uuid4().hex}")
    trace = _Trace()
    try:
        with gzip.open(unfinished, "wt") if path.suffix == ".gz" else unfinished.open("w") as file:
            file.write('{"displayTimeUnit":"ms","traceEvents":[')
            for number, event in enumerate(trace.events(entries)):
                file.write(f"{',' if number else ''}\n{json.dumps(event, separators=(',', ':'))}")
            file.write("\n]}\n")
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write the trace {path}: {error}; name a file in a folder of yours"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return trace.num_spans


class _Trace:
    def __init__(self) -> None:
        self.num_spans = 0
        self._spans = Spans()
        self._pids: dict[str, int] = {}
        self._tids: dict[tuple[str, int, int | str], int] = {}
        self._origin_s: float | None = None
        self._left = self._committed = self._failed = 0
        self._counted_us = 0
        self._rebuilding: dict[tuple[str, int], tuple[float, str]] = {}

    def events(self, entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Trace events, times in whole microseconds since the first event of the run."""
        yield _metadata("process_name", RUN_PID, name="run")
        for entry in entries:
            if self._origin_s is None:
                self._origin_s = entry["ts"]
            for span in self._spans.add(entry):
                yield from self._span(span)
            if entry["event"] == "gang":
                yield from self._gang(entry)
            yield from self._counters(entry)
        for span in self._spans.rest():
            yield from self._span(span)

    def _span(self, span: Span) -> Iterator[dict[str, Any]]:
        yield from self._named(span.pool, span.worker, span.lane)
        self.num_spans += 1
        start_us = self._us(span.start_s)
        yield {
            "ph": "X",
            "name": span.key[:_SHOWN_KEY],
            "cat": span.outcome,
            "pid": self._pids[span.pool],
            "tid": self._tids[span.pool, span.worker, span.lane],
            "ts": start_us,
            "dur": self._us(span.end_s) - start_us,
            "args": {"key": span.key, "attempt": span.attempt, "outcome": span.outcome},
        }

    def _gang(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What happened to a gang, on a thread of its own beside the gang's seats."""
        pool, worker = entry["pool"], entry["worker"]
        yield from self._named(pool, worker, _REBUILDS)
        place = {"cat": "gang", "pid": self._pids[pool], "tid": self._tids[pool, worker, _REBUILDS]}
        args = {"detail": entry["detail"]}
        since = self._rebuilding.pop((pool, worker), None)
        if entry["state"] == "rebuilding":
            self._rebuilding[pool, worker] = entry["ts"], entry["detail"]
        elif since is not None:
            start_us = self._us(since[0])
            span = {"ph": "X", "name": "rebuilding", "ts": start_us, "dur": self._us(entry["ts"]) - start_us}
            yield place | span | {"args": {"detail": since[1]}}
        yield place | {"ph": "i", "s": "t", "name": entry["state"], "ts": self._us(entry["ts"]), "args": args}

    def _counters(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        kind = entry["event"]
        if kind == "run_started":
            self._left = entry.get("counts", {}).get("left", 0)
        elif kind in ("committed", "failed", "skipped"):
            self._committed += kind == "committed"
            self._failed += kind == "failed"
            self._left = max(0, self._left - 1)
        else:
            return
        # Pools tell of what happened a moment later: a counter must not go back in time for that.
        self._counted_us = max(self._counted_us, self._us(entry["ts"]))
        for name, value in (("committed", self._committed), ("failed", self._failed), ("left", self._left)):
            place = {"ph": "C", "name": name, "pid": RUN_PID, "tid": 0, "ts": self._counted_us}
            yield place | {"args": {"clips": value}}

    def _named(self, pool: str, worker: int, seat: int | str) -> Iterator[dict[str, Any]]:
        """Numbers a pool and a thread that were not seen before; the metadata that name them."""
        if pool not in self._pids:
            pid = self._pids[pool] = RUN_PID + 1 + len(self._pids)
            yield _metadata("process_name", pid, name=pool)
            yield _metadata("process_sort_index", pid, sort_index=pid)
        if (pool, worker, seat) not in self._tids:
            pid, tid = self._pids[pool], _FIRST_TID + len(self._tids)
            self._tids[pool, worker, seat] = tid
            yield _metadata("thread_name", pid, tid, name=_thread_name(worker, seat))
            yield _metadata("thread_sort_index", pid, tid, sort_index=worker)

    def _us(self, moment_s: float) -> int:
        return max(0, round((moment_s - (self._origin_s or 0.0)) * 1e6))


def _thread_name(worker: int, seat: int | str) -> str:
    if seat == _REBUILDS:
        return f"worker {worker}, rebuilds"
    return f"worker {worker}, seat {seat}" if seat else f"worker {worker}"


def _metadata(kind: str, pid: int, tid: int = 0, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": args}
