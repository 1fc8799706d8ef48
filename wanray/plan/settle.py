"""Placement and denoise pools of a run: as configured, or chosen for the GPUs that it may take."""

from collections.abc import Iterator
from typing import NamedTuple

from wanray.config import PoolConfig, RenderConfig
from wanray.errors import ConfigError
from wanray.plan.placement import DENOISE_POOLS, choose_placement, placement_reason
from wanray.plan.search import Search, best_layout
from wanray.plan.speed import pool_config
from wanray.plan.work import Work


class Settled(NamedTuple):
    """What is decided."""

    config: RenderConfig
    """With pools as they will be."""
    placement: str
    reason: str
    """For people."""


def settle(config: RenderConfig, work: Work) -> Settled:
    """Decide for the requests of `work`.

    Raises:
        ConfigError: nothing fits on `denoise.gpus`.
    """
    if config.denoise.gpus is None or not work.num_requests:
        placement = choose_placement(config, work.model)
        return Settled(config, placement, placement_reason(config, placement))
    search = best_layout(config, work)
    return Settled(search.best.applied(config), search.best.placement, _words(search, config.denoise.gpus))


def check_choice_is_free(config: RenderConfig) -> None:
    """Refuse settings that `denoise.gpus` would overrule.

    Raises:
        ConfigError: naming the key.
    """
    if config.denoise.gpus is None:
        return
    if config.engine == "local":
        raise ConfigError(
            f"denoise.gpus {config.denoise.gpus} needs engine ray: engine local has one process"
        )
    for name in DENOISE_POOLS.values():
        for key in ("gangs", "topology"):
            value = getattr(pool_config(config, name), key)
            if value != getattr(PoolConfig(), key):
                raise ConfigError(
                    f"denoise.gpus chooses pools.{name}.{key} itself: leave one of them out, got {value}"
                )


def _words(search: Search, num_gpus: int) -> str:
    best = search.best
    numbers = " : ".join(f"{gangs.number} x {gangs.topology.world_size}" for gangs in best.gangs.values())
    of = " high : low" if len(best.gangs) > 1 else ""
    words = [f"{numbers} GPUs{of}, the fastest of {search.num_tried} layouts on {num_gpus} (denoise.gpus)"]
    return "; ".join([*words, *_other_words(search)])


def _other_words(search: Search) -> Iterator[str]:
    for placement, layout in search.others.items():
        if layout is None:
            yield f"{placement} does not fit"
        else:
            yield f"{placement} takes {layout.whole_s / search.best.whole_s:.2f} x as long"
