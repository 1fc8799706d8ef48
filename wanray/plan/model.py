"""What a plan says, as values. Filled by `build`, `pools` and `estimate`, shown by `page`."""

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
class BrokenRule:
    """A rule of the manifest, and how often rows break it."""

    column: str
    rule: str
    """Without the value that breaks it."""
    num_rows: int
    examples: tuple[str, ...]
    """The first messages, whole."""


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
    """Of denoising."""
    clip_s: float = 0.0
    """Estimated seconds from the first stage to the commit, without waiting."""
    gang_s: float = 0.0
    """Estimated seconds that gangs work on a clip."""
    basis: str = ""
    """What `gang_s` rests on: a word of `wanray.plan.services`."""
    clip_bytes: int = 0
    """Estimated size of what is stored of a clip."""

    @property
    def num_pixels(self) -> int:
        """Of all frames."""
        return self.width * self.height * self.num_frames

    def steps_of(self, experts: tuple[str, ...]) -> int:
        """Steps that these experts do together."""
        return sum(self.steps_per_expert.get(expert, 0) for expert in experts)

    def tflop_of(self, experts: tuple[str, ...]) -> float:
        """TFLOP of their steps."""
        return self.tflop_per_clip * self.steps_of(experts) / self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """The workers of one stage, decided."""

    name: str
    experts: tuple[str, ...] = ()
    """For denoise pools; empty for the others."""
    num_workers: int
    """Gangs of a denoise pool, actors of the others."""
    world_size: int = 1
    """Ranks in a gang."""
    topology: str = ""
    """How a gang of several ranks is arranged: `TopologyConfig.words`."""
    arranged_by: str = ""
    """Who said so."""
    num_gpus: float = 0.0
    """That the whole pool takes, on a cluster that has any."""
    busy_s: float = 0.0
    """Estimated seconds of work for each gang or actor, 0 where the estimate does not reach."""
    mean_s: float = 0.0
    """Estimated seconds of a worker per request, over all requests."""
    basis: str = ""
    """What the times rest on, in words."""
    needed: int | None = None
    """Actors that keep the gangs busy, where the estimate reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What the run will take."""

    whole_s: float = 0.0
    """From the first request to the last commit."""
    start_s: float = 0.0
    """Before that: workers start and load their weights."""
    num_gpus: float = 0.0
    cost: float | None = None
    """In `currency`; None: nobody said what a GPU costs."""
    currency: str = ""
    clips_per_hour: float = 0.0
    busiest: str = ""
    """The pool with the most work per worker."""
    storage_bytes: int = 0
    """What the clips of this run add to the output."""
    storage_basis: str = ""
    work_bytes: int = 0
    """States of clips in work, while it runs."""

    @property
    def gpu_hours(self) -> float:
        """All GPUs, from the start to the end."""
        return self.num_gpus * (self.start_s + self.whole_s) / 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One page: what will be done, by whom, how long."""

    run: str
    model: dict[str, str]
    numerics: dict[str, Any]
    placement: str
    placement_reason: str = ""
    counts: Counts
    groups: tuple[ShapeGroup, ...]
    pools: tuple[PoolPlan, ...]
    parts: tuple[str, ...]
    """Plan files, relative to the output."""
    problems: tuple[str, ...]
    """The first of the messages about invalid rows."""
    num_problems: int
    broken_rules: tuple[BrokenRule, ...] = ()
    """The same by rule, those that are broken most first."""
    notes: tuple[str, ...]
    assumptions: dict[str, Any]
    extension: dict[str, Any] = field(default_factory=dict)
    """Who extends the prompts, and how; empty: they are rendered as written."""
    estimate: Estimate = field(default_factory=Estimate)

    @property
    def estimate_s(self) -> float:
        """Seconds from the first request to the last commit."""
        return self.estimate.whole_s

    @property
    def gpu_hours(self) -> float:
        """Those of the estimate."""
        return self.estimate.gpu_hours
