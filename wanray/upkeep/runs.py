"""What the runs of an output do or did, from what they store: summary, events, heartbeat."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from wanray.storage import Store
from wanray.upkeep.output import threads

RUNNING, FINISHED, ENDED = "running", "finished", "ended without a word"
RECENT_S = 600.0
"""The last minutes, for a rate."""
MAX_EVENT_FILES = 2000
"""The newest of a run that are read."""

_BEATING_S = 120.0
"""A run with a heartbeat is running if it gave a sign of life so recently, or before its claims expire."""
_WORKING_S = 1800.0
"""The same for one without: a step of a large clip may say nothing for long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """One run."""

    run: str
    state: str
    """`running`, `finished` or `ended without a word`."""
    exit_code: int | None
    """Of a finished run, which is one with a summary."""
    error: str
    """What ended it early."""
    committed: int
    failed: int
    """With invalid rows."""
    total: int | None
    """Requests that it set out to render, where events tell."""
    is_complete: bool
    """Whether all events were counted; else numbers are those of the newest."""
    clips_per_hour: float | None
    recent_clips_per_hour: float | None
    """Over the last ten minutes of a running one."""
    last_sign_s: float
    """Unix seconds by the store's clock."""
    silent_s: float
    """Since then."""


@dataclass(slots=True)
class _Tally:
    """What events say."""

    is_complete: bool = False
    start_s: float | None = None
    last_s: float = 0.0
    invalid: int = 0
    failed: int = 0
    total: int | None = None
    committed_at_s: list[float] = field(default_factory=list)

    def add(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "run_started":
            counts = entry.get("counts", {})
            self.is_complete, self.start_s, self.failed = True, entry["ts"], 0
            self.invalid, self.total = counts.get("invalid", 0), counts.get("left")
            self.committed_at_s.clear()
        self.start_s = entry["ts"] if self.start_s is None else self.start_s
        self.last_s = max(self.last_s, entry["ts"])
        self.failed += entry["event"] == "failed"
        if entry["event"] == "committed":
            self.committed_at_s.append(entry["ts"])


def read_runs(store: Store, now_s: float, limit: int) -> list[RunView]:
    """At most `limit` runs, newest first; `now_s` is the store's time."""
    with threads(store) as pool:
        names = store.names("runs")
        started = dict(zip(names, pool.map(lambda run: _started(store, run), names), strict=True))
    newest = sorted(names, key=lambda run: (started[run], run), reverse=True)[:limit]
    return [_view(store, run, now_s) for run in newest]


def running(store: Store, now_s: float) -> list[str]:
    """The names of all runs that are running."""
    with threads(store) as pool:
        names = store.names("runs")
        signs = pool.map(lambda run: _Signs.read(store, run), names)
        return [run for run, sign in zip(names, signs, strict=True) if sign.state(now_s) == RUNNING]


@dataclass(frozen=True, slots=True)
class _Signs:
    """When a run last said something, in the store's time."""

    started_s: float
    alive_s: float | None
    events_s: float | None
    summary_s: float | None
    patience_s: float
    """How long a living one may say nothing."""
    events: list[str]

    @staticmethod
    def read(store: Store, run: str) -> "_Signs":
        events = store.names(f"runs/{run}/events")
        newest = _modified(store, f"runs/{run}/events/{events[-1]}") if events else None
        alive, summary = (_modified(store, f"runs/{run}/{name}") for name in ("alive", "summary.json"))
        patience_s = _WORKING_S if alive is None else max(_BEATING_S, _expiry_s(store, run))
        return _Signs(_started(store, run), alive, newest, summary, patience_s, events)

    @property
    def last_s(self) -> float:
        return max(self.started_s, self.alive_s or 0.0, self.events_s or 0.0, self.summary_s or 0.0)

    def state(self, now_s: float) -> str:
        # A run that goes on under the name of an earlier one finds that one's summary.
        if self.summary_s is not None and self.summary_s >= self.started_s:
            return FINISHED
        return RUNNING if now_s - self.last_s <= self.patience_s else ENDED


def _view(store: Store, run: str, now_s: float) -> RunView:
    signs = _Signs.read(store, run)
    state, silent_s = signs.state(now_s), max(0.0, now_s - signs.last_s)
    if state == FINISHED:
        numbers = _from_summary(store, run)
    else:
        since_events_s = now_s - (signs.events_s or now_s) if state == RUNNING else None
        numbers = _from_events(store, run, signs.events, since_events_s)
    return RunView(run=run, state=state, last_sign_s=signs.last_s, silent_s=silent_s, **numbers)


def _from_summary(store: Store, run: str) -> dict[str, Any]:
    summary = json.loads(store.read(f"runs/{run}/summary.json"))
    committed, failed = summary.get("committed", 0), summary.get("failed", 0) + summary.get("invalid", 0)
    return {
        "exit_code": summary.get("exit_code"),
        "error": summary.get("error", ""),
        "committed": committed,
        "failed": failed,
        "total": None,
        "is_complete": True,
        "clips_per_hour": _per_hour(committed, summary.get("seconds", 0.0)),
        "recent_clips_per_hour": None,
    }


def _from_events(store: Store, run: str, names: list[str], since_s: float | None) -> dict[str, Any]:
    """`since_s`: seconds since the newest of them, by the store's clock, if the run goes on; else None."""
    tally = _Tally()
    for entry in _entries(store, run, names[-MAX_EVENT_FILES:]):
        tally.add(entry)
    end_s = tally.last_s + (since_s or 0.0)  # by the clock of the driver, whose events these are
    elapsed_s = end_s - (tally.start_s or end_s)
    recent = sum(moment_s > end_s - RECENT_S for moment_s in tally.committed_at_s)
    return {
        "exit_code": None,
        "error": "",
        "committed": len(tally.committed_at_s),
        "failed": tally.failed + tally.invalid,
        "total": tally.total,
        "is_complete": tally.is_complete,
        "clips_per_hour": _per_hour(len(tally.committed_at_s), elapsed_s),
        "recent_clips_per_hour": _per_hour(recent, min(elapsed_s, RECENT_S)) if since_s is not None else None,
    }


def _entries(store: Store, run: str, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    with threads(store) as pool:
        for data in pool.map(lambda name: store.read(f"runs/{run}/events/{name}"), names):
            yield from map(json.loads, data.splitlines())


def _expiry_s(store: Store, run: str) -> float:
    """`faults.claim_expires_s` of its config."""
    try:
        config = yaml.safe_load(store.read(f"runs/{run}/config.yaml")) or {}
    except FileNotFoundError:
        return 0.0
    return config.get("faults", {}).get("claim_expires_s", 0.0)


def _started(store: Store, run: str) -> float:
    return _modified(store, f"runs/{run}/config.yaml") or 0.0


def _modified(store: Store, path: str) -> float | None:
    try:
        return store.modified(path)
    except FileNotFoundError:
        return None


def _per_hour(count: int, seconds: float) -> float | None:
    return round(3600 * count / seconds, 2) if seconds > 0 else None
