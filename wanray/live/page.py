"""A snapshot for people: a page for a terminal, a line for a log."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.live.snapshot import GangView, PoolView, Snapshot
from wanray.units import format_bytes, format_seconds

SHOWN_GANGS = 8
"""Of a pool, a line each; of more only how many are in which state, and the slowest."""


def live_page(snapshot: Snapshot) -> RenderableType:
    """Counts, rates, and a row per pool."""
    table = Table(
        "pool", "done", "active", "queued", "failed", "busy", "s/step", "gangs", box=None, pad_edge=False
    )
    for number in range(1, 7):
        table.columns[number].justify = "right"
    for pool in snapshot.pools:
        counts = map(str, (pool.done, pool.active, pool.queued, pool.failed))
        table.add_row(pool.name, *counts, _share(pool), _number(pool.step_s), _gangs(pool))
    head = Text.assemble((f"{_counts(snapshot)}  ", "bold"), _times(snapshot))
    return Group(head, Text(_rates(snapshot)), table)


def live_line(snapshot: Snapshot) -> str:
    """The state of the run in one line."""
    pools = " ".join(
        f"{pool.name}={pool.done}/{pool.active}/{pool.queued}/{pool.failed}" for pool in snapshot.pools
    )
    steps = " ".join(
        _work(gang) for pool in snapshot.pools for gang in pool.gangs[:SHOWN_GANGS] if gang.num_steps
    )
    return (
        f"{_counts(snapshot)}, {_times(snapshot)}, {_rates(snapshot)}, "
        f"done/active/queued/failed {pools}{f', steps {steps}' if steps else ''}"
    )


def _counts(snapshot: Snapshot) -> str:
    classes = ", ".join(f"{number} {name}" for name, number in snapshot.failed_by_class.items())
    left = ", ".join(f"{number} {why}" for why, number in snapshot.skipped.items())
    return (
        f"{snapshot.committed} of {snapshot.total} committed, {snapshot.failed + snapshot.invalid} failed"
        f"{f' ({classes})' if classes else ''}{f', {left} by others' if left else ''}"
    )


def _times(snapshot: Snapshot) -> str:
    so_far = f"{format_seconds(snapshot.elapsed_s)} so far"
    if snapshot.state != "rendering":
        return f"{so_far}, {snapshot.state}"
    if snapshot.eta_s is None:
        return f"{so_far}, ETA unknown"
    return f"{so_far}, ETA {format_seconds(snapshot.eta_s)}{'' if snapshot.committed else ' (plan)'}"


def _rates(snapshot: Snapshot) -> str:
    now, mean = snapshot.recent_clips_per_hour, snapshot.clips_per_hour
    stored = format_bytes(snapshot.num_bytes)
    rate = f" ({format_bytes(snapshot.bytes_per_s)}/s)" if snapshot.bytes_per_s else ""
    return f"{_number(now)} clips/h now, {_number(mean)} mean, {stored} stored{rate}"


def _share(pool: PoolView) -> str:
    return "-" if pool.busy_share is None else f"{pool.busy_share:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _gangs(pool: PoolView) -> str:
    if len(pool.gangs) <= SHOWN_GANGS:
        return "\n".join(_work(gang) for gang in pool.gangs)
    states = Counter(gang.state for gang in pool.gangs)
    slowest = max(pool.gangs, key=lambda gang: gang.step_s or 0.0)
    words = ", ".join(f"{number} {state}" for state, number in states.most_common())
    return f"{words}; slowest {slowest.worker}: {_work(slowest)}" if slowest.step_s else words


def _work(gang: GangView) -> str:
    if gang.state != "busy":
        return gang.state
    if not gang.num_steps:
        return gang.key[:8]
    speed = f" {gang.step_s:.3g} s" if gang.step_s is not None else ""
    return f"{gang.key[:8]} {gang.step}/{gang.num_steps}{speed}"
