"""The same requests under other placements, pools and assumptions: what each of them would take."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from wanray.config import RenderConfig
from wanray.config.load import COMMAND_LINE
from wanray.errors import ConfigError
from wanray.plan.estimate import make_estimate
from wanray.plan.model import Estimate
from wanray.plan.placement import DENOISE_POOLS, pool_experts
from wanray.plan.pools import check_pools, check_shapes
from wanray.plan.settle import check_choice_is_free, settle
from wanray.plan.work import Work

MOST = 64
"""Combinations that fit on a page."""
TOPOLOGY = "topology."
"""`topology.X` means X of every denoise pool."""
COMPARABLE = ("placement", "pools.", TOPOLOGY, "estimate.", "denoise.gpus", "denoise.swap_after")
"""Keys, and how keys begin, that change neither requests nor what is known of them."""
FASTEST, CHEAPEST = "fastest", "fewest GPU hours"

Settings = dict[str, str]
"""Key -> value, as the user wrote them."""
Load = Callable[[list[str]], RenderConfig]
"""The config with these `key=value` on top. Raises ConfigError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """One combination, and what comes of it."""

    settings: Settings
    refused: str = ""
    """Why it cannot be; then it has no estimate."""
    placement: str = ""
    estimate: Estimate | None = None
    notes: tuple[str, ...] = ()
    """On settings of this combination that have no effect."""
    best: tuple[str, ...] = ()
    """`FASTEST`, `CHEAPEST` of all."""

    def to_json(self) -> dict[str, Any]:
        """All values, with the totals at the top."""
        estimate = self.estimate
        totals = {} if estimate is None else {"estimate_s": estimate.whole_s, "gpu_hours": estimate.gpu_hours}
        return asdict(self) | totals


def compare(work: Work, combined: Sequence[Settings], load: Load) -> tuple[Alternative, ...]:
    """One per combination, in their order; one that is refused says why."""
    return _marked([_alternative(work, settings, load) for settings in combined])


def with_alternatives(overrides: Sequence[str], options: Sequence[str]) -> tuple[list[str], list[Settings]]:
    """The overrides that hold for all, and the combinations of the options; where there is any option, an
    override may name alternatives too.

    Raises:
        ConfigError: naming the option and what is wrong with it.
    """
    more = [item for item in overrides if options and is_alternatives(item)]
    return [item for item in overrides if item not in more], combinations([*options, *more])


def is_alternatives(override: str) -> bool:
    """Whether `KEY=V1,V2` names several values of a key that can be compared."""
    key, _, values = override.partition("=")
    return key.startswith(COMPARABLE) and len(_split(values)) > 1


def combinations(options: Sequence[str]) -> list[Settings]:
    """All combinations of the values of all keys, from options `KEY=V1,V2`; none where there is no option.

    Raises:
        ConfigError: naming the option and what is wrong with it.
    """
    if not options:
        return []
    values = dict(_parsed(option) for option in options)
    combined = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    if len(combined) > MOST:
        raise ConfigError(
            f"--compare must make at most {MOST} combinations, got {len(combined)}: leave some out"
        )
    return combined


def _parsed(option: str) -> tuple[str, list[str]]:
    key, is_given, values = option.partition("=")
    if not is_given or not key or not all(value.strip() for value in _split(values)):
        raise ConfigError(f"--compare {option!r} must have the form KEY=V1,V2, such as placement=split,both")
    if not key.startswith(COMPARABLE) or key == "estimate.profile":
        raise ConfigError(
            f"--compare {key} is not possible: requests and measured times are read once, so only placement, "
            "topology.*, pools.*, denoise.gpus, denoise.swap_after and estimate.* (but estimate.profile) may "
            "differ"
        )
    return key, _split(values)


def _split(values: str) -> list[str]:
    """At commas that are not within brackets: `{CPU: 1, GPU: 1},{CPU: 2}` are two."""
    parts, depth = [""], 0
    for sign in values:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _alternative(work: Work, settings: Settings, load: Load) -> Alternative:
    try:
        config = load(overrides_of(settings))
        check_choice_is_free(config)
        config, placement, _ = settle(config, work)
        pools = list(pool_experts(placement, work.model))
        notes = check_pools(config, placement, work.dims, pools)
        notes += check_shapes(config, pools, work.groups)
    except ConfigError as error:
        return Alternative(settings=settings, refused=str(error).removesuffix(f" ({COMMAND_LINE})"))
    named = tuple(".".join(key.split(".")[:2]) for key in settings if key.startswith("pools."))
    return Alternative(
        settings=settings,
        placement=placement,
        estimate=make_estimate(config, work, placement).estimate,
        notes=tuple(note for note in notes if named and note.startswith(named)),
    )


def overrides_of(settings: Settings) -> list[str]:
    """The `key=value` that settings stand for."""
    overrides = []
    for key, value in settings.items():
        places = [f"pools.{pool}." for pool in DENOISE_POOLS.values()] if key.startswith(TOPOLOGY) else [""]
        overrides += [f"{place}{key}={value}" for place in places]
    return overrides


def _marked(alternatives: Sequence[Alternative]) -> tuple[Alternative, ...]:
    estimates = [item.estimate for item in alternatives if item.estimate is not None]
    if len(estimates) < 2:
        return tuple(alternatives)
    fastest = min(estimates, key=lambda item: (item.whole_s, item.gpu_hours))
    cheapest = min(estimates, key=lambda item: (item.gpu_hours, item.whole_s))
    best = [(FASTEST, fastest)] + ([(CHEAPEST, cheapest)] if cheapest.gpu_hours else [])
    return tuple(
        replace(item, best=tuple(word for word, estimate in best if item.estimate is estimate))
        for item in alternatives
    )
