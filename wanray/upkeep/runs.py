"""What the runs of an output do or did, from what they store: summary, snapshot, signs of life."""

import json
from dataclasses import dataclass
from typing import Any

import yaml

from wanray.errors import ConfigError
from wanray.live import ENDED, FINISHED, RUNNING, Snapshot
from wanray.storage import Store, threads

_BEATING_S = 120.0
"""A run is running if it gave a sign of life so recently, or before its claims expire."""


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
    """Requests that it set out to render; None before it began."""
    clips_per_hour: float | None
    recent_clips_per_hour: float | None
    """Over the last ten minutes of a running one."""
    eta_s: float | None
    """Time that a running one still needs."""
    last_sign_s: float
    """Unix seconds by the store's clock."""
    silent_s: float
    """Since then."""


def read_runs(store: Store, now_s: float, limit: int) -> list[RunView]:
    """At most `limit` runs, newest first; `now_s` is the store's time."""
    return [read_run(store, run, now_s) for run in newest_runs(store)[:limit]]


def newest_runs(store: Store) -> list[str]:
    """The names of all runs, newest first."""
    with threads(store) as pool:
        names = store.names("runs")
        started = dict(zip(names, pool.map(lambda run: _started(store, run), names), strict=True))
    return sorted(names, key=lambda run: (started[run], run), reverse=True)


def known_runs(store: Store, named: str | None) -> list[str]:
    """The names of all runs, newest first.

    Raises:
        ConfigError: there is none, or none that is called `named` (`--run`).
    """
    names = newest_runs(store)
    if not names:
        raise ConfigError(f"URL {store.url} has no runs yet: name the output.url of a render")
    if named is not None and named not in names:
        newest = ", ".join(names[:5])
        raise ConfigError(f"--run {named} is no run of {store.url}: the newest are {newest}")
    return names


def read_run(store: Store, run: str, now_s: float) -> RunView:
    """One run; `now_s` is the store's time."""
    signs = _Signs.read(store, run)
    state, summary = signs.state(now_s), {}
    seen = read_snapshot(store, run) or Snapshot(run=run)
    if state == FINISHED:
        summary = json.loads(store.read(f"runs/{run}/summary.json"))
    is_running = state == RUNNING
    return RunView(
        run=run,
        state=state,
        exit_code=summary.get("exit_code"),
        error=summary.get("error", ""),
        committed=summary.get("committed", seen.committed),
        failed=summary["failed"] + summary["invalid"] if summary else seen.failed + seen.invalid,
        total=seen.total or None,
        clips_per_hour=_rounded(seen.clips_per_hour),
        recent_clips_per_hour=_rounded(seen.recent_clips_per_hour) if is_running else None,
        eta_s=_rounded(seen.eta_s) if is_running and seen.total else None,
        last_sign_s=signs.last_s,
        silent_s=max(0.0, now_s - signs.last_s),
    )


def read_snapshot(store: Store, run: str) -> Snapshot | None:
    """What the run last told of itself; None before it told anything.

    A run that goes on under the name of an earlier one finds what that one told.
    """
    if (_modified(store, f"runs/{run}/live.json") or 0.0) < _started(store, run):
        return None
    try:
        return Snapshot.from_json(store.read(f"runs/{run}/live.json"))
    except FileNotFoundError:
        return None


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
    last_s: float
    summary_s: float | None
    patience_s: float
    """How long a living one may say nothing."""

    @staticmethod
    def read(store: Store, run: str) -> "_Signs":
        started_s = _started(store, run)
        alive, live, summary = (
            _modified(store, f"runs/{run}/{name}") for name in ("alive", "live.json", "summary.json")
        )
        last_s = max(started_s, alive or 0.0, live or 0.0, summary or 0.0)
        return _Signs(started_s, last_s, summary, max(_BEATING_S, _expiry_s(store, run)))

    def state(self, now_s: float) -> str:
        # A run that goes on under the name of an earlier one finds that one's summary.
        if self.summary_s is not None and self.summary_s >= self.started_s:
            return FINISHED
        return RUNNING if now_s - self.last_s <= self.patience_s else ENDED


def _expiry_s(store: Store, run: str) -> float:
    """`faults.claim_expires_s` of its config."""
    try:
        config: dict[str, Any] = yaml.safe_load(store.read(f"runs/{run}/config.yaml")) or {}
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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
