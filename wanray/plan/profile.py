"""What a run has measured, kept as `runs/<run>/profile.json` so that later plans rest on it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from wanray.config import TopologyConfig
from wanray.errors import ConfigError
from wanray.storage import Store

FORMAT = 1
FILE = "profile.json"
NEWEST_RUNS = 10
"""So many runs are looked into for one that left a profile."""
NEVER = "none"
"""`estimate.profile` of who trusts the FLOP model only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Seconds of one stage for requests that cost the same, of first attempts only."""

    stage: str
    width: int
    height: int
    num_frames: int
    num_steps: int = 0
    """That a denoise stage did; 0 for others."""
    guided: bool = False
    """Of a denoise stage."""
    world_size: int = 1
    topology: str = ""
    """Of a gang of several ranks: `TopologyConfig.words`; empty in profiles that do not tell."""
    tflop: float = 0.0
    """Of a denoise stage, by the FLOP model."""
    count: int
    mean_s: float
    median_s: float

    @property
    def gang(self) -> TopologyConfig:
        """How its ranks were arranged, or may have been."""
        return TopologyConfig.from_words(self.topology or f"ulysses {self.world_size}")

    @property
    def num_pixels(self) -> int:
        """Of all frames."""
        return self.width * self.height * self.num_frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The times of one run."""

    run: str
    model: str
    """Name in the registry."""
    dtype: str
    num_clips: int
    start_s: float
    """From the start of the run until a worker of each pool was ready."""
    requests_per_text: float = 1.0
    """How many requests shared what was encoded of one prompt."""
    worker_share: dict[str, float] = field(default_factory=dict)
    """Pool -> seconds of a worker per second that a request spent in its stages: below 1 where a worker has
    several in work."""
    measured: tuple[Measured, ...] = ()

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> "Profile":
        """The profile that `to_json` wrote.

        Raises:
            ValueError: it is not one.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"not a profile of format {FORMAT}")
        measured = tuple(Measured(**entry) for entry in values.pop("measured"))
        return Profile(**values, measured=measured)


def find_profile(named: str | None, output: Store) -> Profile | None:
    """The profile that `estimate.profile` names, or what `wanray profile` kept in `output`, or that of its
    newest run that left one.

    Raises:
        ConfigError: what is named has none, or what is found is damaged.
        StorageError: a store cannot be reached.
    """
    if named == NEVER:
        return None
    if named is None:
        return read_profile(output, FILE) or next(_profiles(output), None)
    return _named(named)


def profile_path(run: str) -> str:
    """Where a run leaves its profile, relative to the output."""
    return f"runs/{run}/{FILE}"


def _profiles(output: Store) -> Iterator[Profile]:
    """Of the newest runs, the newest first; run names sort by time."""
    for run in islice(reversed(output.names("runs")), NEWEST_RUNS):
        found = read_profile(output, profile_path(run))
        if found is not None:
            yield found


def _named(url: str) -> Profile:
    place, _, name = url.rstrip("/").rpartition("/")
    if name.endswith(".json"):
        found = read_profile(Store.open(place or "."), name)
    else:
        folder = Store.open(url)
        found = read_profile(folder, FILE) or next(_profiles(folder), None)
    if found is None:
        raise ConfigError(
            f"estimate.profile {url} has no profile: name a {FILE}, the folder of a run or the output.url "
            "of a render"
        )
    return found


def read_profile(store: Store, path: str) -> Profile | None:
    """The profile at `path`; None where there is none.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return Profile.from_json(store.read(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"estimate.profile {store.uri(path)} cannot be read ({error}): remove it, name another, or set "
            f"estimate.profile={NEVER}"
        ) from None


def fits(profile: Profile, model: str, dtype: str) -> str:
    """Why a profile says nothing of a job with this model and dtype; empty where it does."""
    differing: list[tuple[str, Any, Any]] = [
        (name, theirs, ours)
        for name, theirs, ours in (("model", profile.model, model), ("dtype", profile.dtype, dtype))
        if theirs != ours
    ]
    return ", ".join(f"its {name} is {theirs}, not {ours}" for name, theirs, ours in differing)
