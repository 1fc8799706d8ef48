"""A run at one moment, as a value that travels as JSON: the run stores it now and then, others read it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

RECENT_S = 600.0
"""The last minutes, over which the present rate is taken."""
RUNNING, FINISHED, ENDED = "running", "finished", "ended without a word"
"""What becomes of a run, as others see it."""
UP = ("idle", "busy")
"""States of a gang that can work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GangView:
    """One gang, or one worker of another pool."""

    worker: int = 0
    state: str = "idle"
    """`idle`, `busy`, `rebuilding` or `lost`."""
    key: str = ""
    """What it has in work, the one that was heard of last."""
    step: int = 0
    num_steps: int = 0
    step_s: float | None = None
    """Seconds of a step of this request, once two were heard of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolView:
    """One pool; `queued` is what waits in front of it."""

    name: str
    done: int = 0
    active: int = 0
    queued: int = 0
    failed: int = 0
    rebuilds: int = 0
    """Times that a gang had to be built again."""
    busy_s: float = 0.0
    """Seconds in which gangs had work, summed over gangs."""
    up_s: float = 0.0
    """Seconds in which gangs could have worked, summed over gangs."""
    gangs: tuple[GangView, ...] = ()

    @property
    def busy_share(self) -> float | None:
        """Of the time in which its gangs could work; None before any could."""
        return self.busy_s / self.up_s if self.up_s else None

    @property
    def step_s(self) -> float | None:
        """Seconds of a step now: the mean over its gangs."""
        steps_s = [gang.step_s for gang in self.gangs if gang.step_s is not None]
        return sum(steps_s) / len(steps_s) if steps_s else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A whole run. Counters only grow while the run goes on; all end where the ledger is."""

    run: str
    model: str = ""
    ts: float = 0.0
    """Unix seconds by the driver's clock."""
    state: str = "loading"
    """`loading` (no gang can work yet), `rendering`, `stopping` (told to stop) or `finished`."""
    total: int = 0
    """Requests that the run set out to render."""
    committed: int = 0
    failed: int = 0
    invalid: int = 0
    """Rows of the manifest that became failures before anything started."""
    failed_by_class: dict[str, int] = field(default_factory=dict)
    """With the invalid ones."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Requests that were left to others, by why (`records.SKIPPED`)."""
    elapsed_s: float = 0.0
    estimate_s: float | None = None
    """What the plan says that the run takes."""
    num_bytes: int = 0
    """Of the videos committed."""
    steps: int = 0
    """Denoise steps of the clips committed."""
    tokens: int = 0
    """Tokens of the clips committed, times their steps."""
    stage_s: dict[str, float] = field(default_factory=dict)
    """Seconds per stage, summed over the clips committed."""
    recent_clips: int = 0
    """Commits after the first of the last minutes."""
    recent_bytes: int = 0
    recent_s: float = 0.0
    """Since that first one."""
    pools: tuple[PoolView, ...] = ()
    """In the order of the data flow."""

    @property
    def left(self) -> int:
        """Requests of which nothing has become yet."""
        return max(0, self.total - self.committed - self.failed - sum(self.skipped.values()))

    @property
    def clips_per_hour(self) -> float | None:
        """The mean since the start."""
        return 3600 * self.committed / self.elapsed_s if self.committed and self.elapsed_s else None

    @property
    def recent_clips_per_hour(self) -> float | None:
        """The rate now; None before two were committed within the last minutes."""
        return 3600 * self.recent_clips / self.recent_s if self.recent_clips and self.recent_s else None

    @property
    def bytes_per_s(self) -> float | None:
        """Stored per second now."""
        return self.recent_bytes / self.recent_s if self.recent_clips and self.recent_s else None

    @property
    def eta_s(self) -> float | None:
        """Time left: at the present rate, else at the mean one, else what the plan says."""
        rate = self.recent_clips_per_hour or self.clips_per_hour
        if rate:
            return 3600 * self.left / rate
        return None if self.estimate_s is None else max(0.0, self.estimate_s - self.elapsed_s)

    def to_json(self) -> dict[str, Any]:
        """All values and rates, for machines."""
        rates = ("left", "clips_per_hour", "recent_clips_per_hour", "bytes_per_s", "eta_s")
        return asdict(self) | {name: getattr(self, name) for name in rates}

    @staticmethod
    def from_json(text: bytes | str) -> "Snapshot":
        """The snapshot that `to_json` made; what a newer version added is left out."""
        values = json.loads(text)
        values["pools"] = tuple(_pool(pool) for pool in values["pools"])
        return Snapshot(**_known(Snapshot, values))


def _pool(values: dict[str, Any]) -> PoolView:
    values["gangs"] = tuple(GangView(**_known(GangView, gang)) for gang in values["gangs"])
    return PoolView(**_known(PoolView, values))


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = kind.__dataclass_fields__  # pyright: ignore[reportAttributeAccessIssue]
    return {name: value for name, value in values.items() if name in names}
