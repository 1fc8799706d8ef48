"""What a run did, from its events: who worked when, what was committed when, what went wrong.

One pass, in memory that grows with the workers and with what is in work, not with the run: of long runs
single spans are dropped and sums stay.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wanray.report.spans import Span, Spans
from wanray.report.tallies import Distribution, TimeBins

MAX_SPANS = 5000
"""Above this a timeline shows shares of time, not single spans."""
MAX_GANG_EVENTS = 1000
WHOLE = "whole"
"""Stage name of the time from the first dispatch of a clip to its commit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTimes:
    """Unix seconds of one committed clip."""

    first_s: float | None
    """First dispatched to any pool; None where no event tells."""
    committed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GangEvent:
    """A gang that came or went."""

    ts: float
    pool: str
    worker: int
    state: str
    """`idle` (built), `rebuilding` or `lost`."""
    detail: str


@dataclass(kw_only=True, slots=True)
class WorkerHistory:
    """One worker of a pool."""

    busy: TimeBins
    """Seconds with something in work."""
    busy_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    num_rebuilds: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """All of it. `elapsed_s` leaves out the time between a driver that ended and the one that went on."""

    start_s: float
    end_s: float
    elapsed_s: float
    first_s: float | None
    """When the first request was taken up, after all workers had started."""
    num_starts: int
    """Times that the run was started under its name."""
    counts: dict[str, int]
    """Of the newest start's plan."""
    ending: dict[str, Any] | None
    """The event `run_finished`, None if the newest start has not come so far."""
    events: Counter[str]
    """How many there are of each kind."""
    pools: dict[str, dict[int, WorkerHistory]]
    """In the order of the data flow, where the run tells it."""
    num_gpus: float | None
    """That all workers have together; None where the run does not tell."""
    spans: tuple[Span, ...]
    """All, or none if there are more than MAX_SPANS."""
    num_spans: int
    gangs: tuple[GangEvent, ...]
    """The newest."""
    commits: TimeBins
    latencies: dict[str, Distribution]
    """Per stage what it took, and WHOLE."""
    clips: dict[str, ClipTimes]
    """The newest committed ones, oldest first."""


def fold(entries: Iterable[dict[str, Any]], max_clips: int) -> History:
    """The history that the events of a run tell; times of at most `max_clips` clips are kept."""
    folding = _Folding(max_clips)
    for entry in entries:
        folding.add(entry)
    return folding.history()


class _Folding:
    def __init__(self, max_clips: int) -> None:
        self._spans = Spans()
        self._kept: list[Span] = []
        self._num_spans = 0
        self._pools: dict[str, dict[int, WorkerHistory]] = {}
        self._events: Counter[str] = Counter()
        self._gangs: deque[GangEvent] = deque(maxlen=MAX_GANG_EVENTS)
        self._latencies: dict[str, Distribution] = defaultdict(Distribution)
        self._first_s: dict[str, float] = {}
        """Of what is on its way."""
        self._clips: deque[tuple[str, ClipTimes]] = deque(maxlen=max_clips)
        self._counts: dict[str, int] = {}
        self._ending: dict[str, Any] | None = None
        self._num_gpus: float | None = None
        self._first_work_s: float | None = None
        self._commits = TimeBins(0.0)
        self._start_s = self._started_s = self._last_s = self._elapsed_s = 0.0

    def add(self, entry: dict[str, Any]) -> None:
        now_s, kind = entry["ts"], entry["event"]
        if not self._events:
            self._start_s = self._started_s = self._last_s = now_s
            self._commits = TimeBins(now_s)
        for span in self._spans.add(entry):
            self._work(span)
        self._events[kind] += 1
        match kind:
            case "run_started":
                self._elapsed_s += self._last_s - self._started_s
                self._started_s, self._counts, self._ending = now_s, entry.get("counts", {}), None
                self._first_s.clear()
                for pool in entry.get("pools", ()):
                    self._pools.setdefault(pool, {})
            case "connected":
                self._num_gpus = entry["num_gpus"]
            case "run_finished":
                self._ending = entry
            case "dispatched":
                self._first_s.setdefault(entry["key"], now_s)
                self._first_work_s = now_s if self._first_work_s is None else self._first_work_s
            case "gang":
                self._gang(entry)
            case "committed":
                self._commit(entry)
            case "failed" | "skipped":
                self._first_s.pop(entry["key"], None)
        self._last_s = max(self._last_s, now_s)

    def history(self) -> History:
        for span in self._spans.rest():
            self._work(span)
        return History(
            start_s=self._start_s,
            end_s=self._last_s,
            elapsed_s=self._elapsed_s + self._last_s - self._started_s,
            first_s=self._first_work_s,
            num_starts=self._events["run_started"],
            counts=self._counts,
            ending=self._ending,
            events=self._events,
            pools=self._pools,
            num_gpus=self._num_gpus,
            spans=tuple(self._kept),
            num_spans=self._num_spans,
            gangs=tuple(self._gangs),
            commits=self._commits,
            latencies=dict(self._latencies),
            clips=dict(self._clips),
        )

    def _work(self, span: Span) -> None:
        worker = self._worker(span.pool, span.worker)
        worker.outcomes[span.outcome] += 1
        if span.busy_since_s is not None:
            worker.busy_s += span.end_s - span.busy_since_s
            worker.busy.cover(span.busy_since_s, span.end_s)
        self._num_spans += 1
        if self._num_spans <= MAX_SPANS:
            self._kept.append(span)
        else:
            self._kept.clear()

    def _worker(self, pool: str, number: int) -> WorkerHistory:
        workers = self._pools.setdefault(pool, {})
        if number not in workers:
            workers[number] = WorkerHistory(busy=TimeBins(self._start_s))
        return workers[number]

    def _gang(self, entry: dict[str, Any]) -> None:
        values = {name: entry[name] for name in ("ts", "pool", "worker", "state", "detail")}
        self._gangs.append(GangEvent(**values))
        worker = self._worker(entry["pool"], entry["worker"])
        worker.num_rebuilds += entry["state"] == "rebuilding"

    def _commit(self, entry: dict[str, Any]) -> None:
        key, now_s = entry["key"], entry["ts"]
        first_s = self._first_s.pop(key, None)
        self._clips.append((key, ClipTimes(first_s=first_s, committed_s=now_s)))
        self._commits.count(now_s)
        for stage, seconds in entry["timings_s"].items():
            self._latencies[stage].add(seconds)
        if first_s is not None:
            self._latencies[WHOLE].add(now_s - first_s)
