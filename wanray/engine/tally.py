"""What pools have in work and have done, and what was committed, counted from the news of it.

Times are those of the news, in Unix seconds. The caller locks.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from wanray.live import GangView, PoolView
from wanray.live.snapshot import RECENT_S, UP
from wanray.records import Record


class Progress(NamedTuple):
    """Of one request: the pool that has it, and its steps as far as this pool told of any."""

    pool: str
    step: int
    num_steps: int


@dataclass(slots=True)
class _Gang:
    view: GangView
    since_s: float
    """When its state began."""
    step_at_s: float | None = None
    """When it was last heard of a step of what it has in work."""


@dataclass(slots=True)
class PoolTally:
    """One pool."""

    name: str
    done: int = 0
    failed: int = 0
    rebuilds: int = 0
    busy_s: float = 0.0
    up_s: float = 0.0
    work: dict[str, int] = field(default_factory=dict)
    """Key -> the worker that has it."""
    _gangs: dict[int, _Gang] = field(default_factory=dict)

    @property
    def has_gangs(self) -> bool:
        """Whether anything was heard of any."""
        return bool(self._gangs)

    def take(self, key: str, worker: int, now_s: float) -> None:
        """A worker takes up `key`."""
        self.work[key] = worker
        self._set(worker, "busy", now_s, key)

    def step(self, key: str, worker: int, step: int, num_steps: int, now_s: float) -> None:
        """A worker has done `step` of `num_steps` of `key`."""
        self._set(worker, "busy", now_s, key)
        gang = self._gangs[worker]
        step_s, done = gang.view.step_s, step - gang.view.step
        if gang.step_at_s is not None and done > 0:
            step_s = (now_s - gang.step_at_s) / done
        gang.view = replace(gang.view, step=step, num_steps=num_steps, step_s=step_s)
        gang.step_at_s = now_s

    def leave(self, key: str, worker: int, outcome: str, now_s: float) -> None:
        """A worker is through with `key`: `done`, `failed`, or `lost` when the worker itself died."""
        self.done += outcome == "done"
        self.work.pop(key, None)
        others = [other for other, place in self.work.items() if place == worker]
        if outcome == "lost" or not others:
            self._set(worker, "rebuilding" if outcome == "lost" else "idle", now_s)
        elif self._gangs[worker].view.key == key:
            self._set(worker, "busy", now_s, others[0])

    def change(self, worker: int, state: str, now_s: float) -> None:
        """A gang came up, died or was given up; what it had in work is not there any more."""
        before = self._gangs.get(worker)
        self.rebuilds += state == "idle" and before is not None and before.view.state == "rebuilding"
        self._set(worker, state, now_s)
        self.work = {key: place for key, place in self.work.items() if place != worker}

    def progress(self, key: str) -> Progress:
        """Of a request in work."""
        view = self._gangs[self.work[key]].view
        return Progress(self.name, *((view.step, view.num_steps) if view.key == key else (0, 0)))

    def view(self, queued: int, now_s: float) -> PoolView:
        """The pool now."""
        gangs = [self._gangs[worker] for worker in sorted(self._gangs)]
        running = [(gang.view.state, max(0.0, now_s - gang.since_s)) for gang in gangs]
        return PoolView(
            name=self.name,
            done=self.done,
            active=len(self.work),
            queued=queued,
            failed=self.failed,
            rebuilds=self.rebuilds,
            busy_s=self.busy_s + sum(span_s for state, span_s in running if state == "busy"),
            up_s=self.up_s + sum(span_s for state, span_s in running if state in UP),
            gangs=tuple(gang.view for gang in gangs),
        )

    def _set(self, worker: int, state: str, now_s: float, key: str = "") -> None:
        """Bring the gang into a state; what it was busy with is forgotten if that is something else now."""
        gang = self._gangs.setdefault(worker, _Gang(GangView(worker=worker, state=state), now_s))
        span_s = max(0.0, now_s - gang.since_s)
        self.busy_s += span_s if gang.view.state == "busy" else 0.0
        self.up_s += span_s if gang.view.state in UP else 0.0
        gang.since_s = max(now_s, gang.since_s)
        if (gang.view.state, gang.view.key) != (state, key):
            gang.view, gang.step_at_s = GangView(worker=worker, state=state, key=key), None


@dataclass(slots=True)
class ClipTotals:
    """Sums over the clips committed."""

    num_bytes: int = 0
    steps: int = 0
    tokens: int = 0
    stage_s: dict[str, float] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    """(when, bytes) of those within the last minutes."""

    def add(self, record: Record, tokens: int, now_s: float) -> None:
        """A clip of so many tokens was committed."""
        assert record.clip is not None
        self.num_bytes += record.clip.bytes
        self.steps += record.request.steps
        self.tokens += tokens * record.request.steps
        for stage, seconds in record.timings_s.items():
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds
        self._recent.append((now_s, record.clip.bytes))
        self._forget_old(now_s)

    def fields(self, now_s: float) -> dict[str, Any]:
        """The part of a snapshot that is told here."""
        self._forget_old(now_s)
        first_s, first_bytes = self._recent[0] if self._recent else (now_s, 0)
        return {
            "num_bytes": self.num_bytes,
            "steps": self.steps,
            "tokens": self.tokens,
            "stage_s": dict(self.stage_s),
            "recent_clips": max(0, len(self._recent) - 1),
            "recent_bytes": sum(num_bytes for _, num_bytes in self._recent) - first_bytes,
            "recent_s": now_s - first_s,
        }

    def _forget_old(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] < now_s - RECENT_S:
            self._recent.popleft()
