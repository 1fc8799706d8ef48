"""What a plan says, as values. Filled by `build` and `pools`, shown by `page`."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Requests by what becomes of them."""

    rows: int = 0
    """Rows of the manifest."""
    invalid: int = 0
    """Rows that break a rule; each becomes a failure record."""
    requests: int = 0
    """Requests after seeds and sweep."""
    merged: int = 0
    """Requests equal to an earlier one."""
    committed: int = 0
    """Rendered by an earlier run."""
    failed_before: int = 0
    """Failed in an earlier run for good, and not asked for again."""
    not_chosen: int = 0
    """Not among those that were asked for by name."""
    left: int = 0
    """To do now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeGroup:
    """Requests that cost the same."""

    width: int
    height: int
    num_frames: int
    steps: int
    shift: float
    solver: str
    guided: bool
    """Whether each step also needs the unconditional forward."""
    num_requests: int
    tokens: int
    steps_per_expert: dict[str, int]
    tflop_per_clip: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """The workers of one stage, decided."""

    name: str
    experts: tuple[str, ...]
    """For denoise pools; empty for encode and decode."""
    num_workers: int
    """Gangs of a denoise pool, actors of the others."""
    world_size: int
    """Ranks in a gang."""
    busy_s: float
    """Estimated seconds of work for each gang or actor, 0 where the estimate does not reach."""
    needed: int | None = None
    """Actors that keep the gangs busy, where the estimate reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One page: what will be done, by whom, how long."""

    run: str
    model: dict[str, str]
    numerics: dict[str, Any]
    placement: str
    counts: Counts
    groups: tuple[ShapeGroup, ...]
    pools: tuple[PoolPlan, ...]
    parts: tuple[str, ...]
    """Plan files, relative to the output."""
    problems: tuple[str, ...]
    """The first of the messages about invalid rows."""
    num_problems: int
    notes: tuple[str, ...]
    assumptions: dict[str, Any]
    extension: dict[str, Any] = field(default_factory=dict)
    """Who extends the prompts, and how; empty: they are rendered as written."""

    @property
    def estimate_s(self) -> float:
        """Seconds of the run: the busiest pool's."""
        return max((pool.busy_s for pool in self.pools), default=0.0)

    @property
    def gpu_hours(self) -> float:
        """Ranks times the whole time, denoise pools only."""
        ranks = sum(pool.num_workers * pool.world_size for pool in self.pools if pool.experts)
        return ranks * self.estimate_s / 3600
