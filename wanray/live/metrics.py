"""The metrics of a run: names, kinds and labels by Prometheus' conventions, and how a snapshot gives them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wanray.live.snapshot import Snapshot

Values = Mapping[tuple[str, ...], float]
"""Values of the labels, in their order -> value."""
RUN_LABELS = ("run", "model")
GANG_STATES = ("idle", "busy", "rebuilding", "lost")


@dataclass(frozen=True, slots=True)
class Metric:
    """One family; `labels` come after `RUN_LABELS`. A name that ends in `_total` is a counter's."""

    name: str
    labels: tuple[str, ...]
    help: str
    values: Callable[[Snapshot], Values]

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.name.endswith("_total")


def _one(value: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Values]:
    """A family without labels of its own; nothing where there is no value."""

    def values(snapshot: Snapshot) -> Values:
        number = value(snapshot)
        return {} if number is None else {(): number}

    return values


def _each(value: Callable[[Snapshot], Mapping[str, float]]) -> Callable[[Snapshot], Values]:
    return lambda snapshot: {(name,): number for name, number in value(snapshot).items()}


def _pools(attribute: str) -> Callable[[Snapshot], Values]:
    """One value per pool, left out where there is none."""

    def values(snapshot: Snapshot) -> Values:
        numbers = {(pool.name,): getattr(pool, attribute) for pool in snapshot.pools}
        return {labels: number for labels, number in numbers.items() if number is not None}

    return values


def _gangs(snapshot: Snapshot) -> Values:
    counts = Counter((pool.name, gang.state) for pool in snapshot.pools for gang in pool.gangs)
    return {(pool.name, state): counts[pool.name, state] for pool in snapshot.pools for state in GANG_STATES}


METRICS = (
    Metric("wanray_requests_total", (), "Requests that the run set out to render.", _one(lambda s: s.total)),
    Metric("wanray_clips_total", (), "Clips committed.", _one(lambda s: s.committed)),
    Metric(
        "wanray_failures_total",
        ("class",),
        "Requests and rows that became failure records, by class (input, model, infrastructure).",
        _each(lambda s: s.failed_by_class),
    ),
    Metric(
        "wanray_skipped_total",
        ("why",),
        "Requests left to others (committed, claimed).",
        _each(lambda s: s.skipped),
    ),
    Metric("wanray_video_bytes_total", (), "Bytes of the videos committed.", _one(lambda s: s.num_bytes)),
    Metric("wanray_steps_total", (), "Denoise steps of the clips committed.", _one(lambda s: s.steps)),
    Metric(
        "wanray_tokens_total", (), "Tokens of the clips committed, times steps.", _one(lambda s: s.tokens)
    ),
    Metric(
        "wanray_stage_seconds_total",
        ("stage",),
        "Seconds that the committed clips spent in each stage; over wanray_clips_total the mean.",
        _each(lambda s: s.stage_s),
    ),
    Metric("wanray_pool_requests_total", ("pool",), "Requests that a pool is through with.", _pools("done")),
    Metric(
        "wanray_pool_queued_requests", ("pool",), "Requests that wait in front of a pool.", _pools("queued")
    ),
    Metric("wanray_pool_active_requests", ("pool",), "Requests that a pool has in work.", _pools("active")),
    Metric(
        "wanray_gang_busy_seconds_total",
        ("pool",),
        "Seconds in which gangs had work, summed; its rate over that of the next is the busy share.",
        _pools("busy_s"),
    ),
    Metric(
        "wanray_gang_up_seconds_total",
        ("pool",),
        "Seconds in which gangs could have worked, summed.",
        _pools("up_s"),
    ),
    Metric(
        "wanray_pool_busy_ratio",
        ("pool",),
        "Busy share since the start of the run, 0 to 1.",
        _pools("busy_share"),
    ),
    Metric("wanray_gang_rebuilds_total", ("pool",), "Times that a gang was built again.", _pools("rebuilds")),
    Metric("wanray_gangs", ("pool", "state"), "Gangs by state (idle, busy, rebuilding, lost).", _gangs),
    Metric("wanray_step_seconds", ("pool",), "Seconds of a step now, mean over gangs.", _pools("step_s")),
    Metric("wanray_eta_seconds", (), "Time that the run still needs.", _one(lambda s: s.eta_s)),
    Metric("wanray_elapsed_seconds", (), "Time since the run began.", _one(lambda s: s.elapsed_s)),
)
"""All of them; Ray puts `ray_` in front of the names."""


def metrics_table() -> str:
    """The metrics as a table in Markdown, as it stands in the documentation."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in (*RUN_LABELS, *metric.labels))
        kind = "counter" if metric.is_counter else "gauge"
        lines.append(f"| `ray_{metric.name}` | {kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
