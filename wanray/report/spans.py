"""Pairs what workers took up with what they let go. Knows events of the monitor, not who shows the spans."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LOST, UNFINISHED = "lost", "unfinished"
"""Outcomes: the worker died with it; it was in work at the last event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One request on one worker."""

    pool: str
    worker: int
    lane: int
    """Which of the worker's seats, from 0: spans of one lane do not overlap."""
    key: str
    attempt: int
    start_s: float
    """Unix seconds, as `end_s`."""
    end_s: float
    outcome: str
    """`done`, `failed`, `stopped`, `lost` or `unfinished`."""
    busy_since_s: float | None
    """Of the span with which its worker fell idle: since when it had had something to do."""


@dataclass(slots=True)
class _Worker:
    lanes: dict[int, tuple[str, int, float]] = field(default_factory=dict)
    """Lane -> key, attempt and start of what is in work."""
    ends_s: dict[int, float] = field(default_factory=dict)
    """Lane -> end of its last span."""
    busy_since_s: float = 0.0


class Spans:
    """One pass over the events of a run; memory is that of what is in work."""

    def __init__(self) -> None:
        self._workers: dict[tuple[str, int], _Worker] = defaultdict(_Worker)
        self._last_s = 0.0

    def add(self, entry: dict[str, Any]) -> Iterator[Span]:
        """The spans that this event ends."""
        kind, now_s = entry["event"], entry["ts"]
        if kind == "dispatched":
            self._take(entry)
        elif kind == "released":
            yield from self._release(entry)
        elif kind == "gang" and entry["state"] == "idle":  # built anew, it holds nothing
            yield from self._drop(entry["pool"], entry["worker"], now_s, LOST)
        elif kind == "run_started":  # a driver before this one may have been killed
            yield from self.rest()
        self._last_s = max(self._last_s, now_s)

    def rest(self) -> Iterator[Span]:
        """What no event ended, up to the last event."""
        for pool, number in list(self._workers):
            yield from self._drop(pool, number, self._last_s, UNFINISHED)

    def _take(self, entry: dict[str, Any]) -> None:
        worker = self._workers[entry["pool"], entry["worker"]]
        lane = next(lane for lane in range(len(worker.lanes) + 1) if lane not in worker.lanes)
        # Threads tell the time before they are written down, so that it may go back a little.
        start_s = max(entry["ts"], worker.ends_s.get(lane, 0.0))
        if not worker.lanes:
            worker.busy_since_s = start_s
        worker.lanes[lane] = entry["key"], entry["attempt"], start_s

    def _release(self, entry: dict[str, Any]) -> Iterator[Span]:
        worker = self._workers[entry["pool"], entry["worker"]]
        for lane, (key, _, _) in worker.lanes.items():
            if key == entry["key"]:
                yield self._end(entry["pool"], entry["worker"], lane, entry["ts"], entry["outcome"])
                return

    def _drop(self, pool: str, number: int, now_s: float, outcome: str) -> Iterator[Span]:
        for lane in list(self._workers[pool, number].lanes):
            yield self._end(pool, number, lane, now_s, outcome)

    def _end(self, pool: str, number: int, lane: int, now_s: float, outcome: str) -> Span:
        worker = self._workers[pool, number]
        key, attempt, start_s = worker.lanes.pop(lane)
        end_s = worker.ends_s[lane] = max(now_s, start_s)
        return Span(
            pool=pool,
            worker=number,
            lane=lane,
            key=key,
            attempt=attempt,
            start_s=start_s,
            end_s=end_s,
            outcome=outcome,
            busy_since_s=None if worker.lanes else min(worker.busy_since_s, end_s),
        )
