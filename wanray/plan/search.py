"""The gangs that render most videos per hour on so many GPUs: every layout that fits into memory is tried.

The times are those of the plan (`services`): measured where a run left a profile, else by the FLOP model.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from wanray.config import RenderConfig, TopologyConfig
from wanray.errors import ConfigError
from wanray.plan.memory import fits
from wanray.plan.model import PoolPlan
from wanray.plan.placement import pool_experts, possible_placements
from wanray.plan.services import pool_services
from wanray.plan.speed import gpus_per_worker, pool_config
from wanray.plan.work import Work

LARGEST_GANG = 8
"""Ranks that lie within one node, nearly everywhere; what a gang costs across nodes nobody has measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gangs:
    """Of one pool."""

    topology: TopologyConfig
    number: int
    request_s: float
    """Mean seconds that one of them takes for a request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Who denoises what."""

    placement: str
    gangs: dict[str, Gangs]
    """By pool, in the order of the data flow."""
    num_gpus: int
    whole_s: float
    """Until all requests are denoised."""

    @property
    def clip_s(self) -> float:
        """Seconds of gangs that one request waits for."""
        return sum(gangs.request_s for gangs in self.gangs.values())

    def applied(self, config: RenderConfig) -> RenderConfig:
        """The config that asks for just this."""
        pools = {
            name: replace(pool_config(config, name), gangs=gangs.number, topology=gangs.topology)
            for name, gangs in self.gangs.items()
        }
        placement = config.placement if self.placement == "single" else self.placement
        return replace(config, placement=placement, pools=replace(config.pools, **pools))


class Search(NamedTuple):
    """What was found."""

    best: Layout
    others: dict[str, Layout | None]
    """The best of each other placement; None where nothing of it fits."""
    num_tried: int


def best_layout(config: RenderConfig, work: Work) -> Search:
    """The layout on `denoise.gpus` GPUs that is through with all requests of `work` first; of equals the one
    with fewer GPUs, then the one with the shorter wait for a clip.

    Raises:
        ConfigError: nothing fits.
    """
    tried = {
        placement: list(_all(placement, config, work))
        for placement in possible_placements(config, work.model)
    }
    best = {placement: min(layouts, key=_rank, default=None) for placement, layouts in tried.items()}
    found = [layout for layout in best.values() if layout is not None]
    if not found:
        raise ConfigError(
            f"denoise.gpus {config.denoise.gpus}: no gang of up to {LARGEST_GANG} GPUs of "
            f"{config.estimate.gpu_bytes / 2**30:.1f} GiB holds {work.model.name} with these requests: "
            "use more or larger GPUs (estimate.gpu, estimate.gpu_gib), fewer pixels or frames"
            f"{_remedy(config)}"
        )
    winner = min(found, key=_rank)
    others = {name: layout for name, layout in best.items() if layout is not winner}
    return Search(winner, others, sum(map(len, tried.values())))


def _remedy(config: RenderConfig) -> str:
    return "" if config.denoise.offloads else ", or denoise.offload=sequential"


def _rank(layout: Layout) -> tuple[float, int, float]:
    return round(layout.whole_s, 6), layout.num_gpus, layout.clip_s


def _all(placement: str, config: RenderConfig, work: Work) -> Iterator[Layout]:
    """The best numbers of gangs for each choice of topologies."""
    experts = pool_experts(placement, work.model)
    choices = [list(_choices(name, placement, config, work)) for name in experts]
    for chosen in product(*choices):
        sizes = [_gpus_of(name, gangs, config) for name, gangs in zip(experts, chosen, strict=True)]
        seconds = [gangs.request_s for gangs in chosen]
        numbers = _numbers(sizes, config.denoise.gpus or 0, work.num_requests)
        best = min(numbers, key=lambda tried: (_whole_s(seconds, tried, work), sum(tried)), default=None)
        if best is None:
            continue
        gangs = [replace(one, number=number) for one, number in zip(chosen, best, strict=True)]
        yield Layout(
            placement=placement,
            gangs=dict(zip(experts, gangs, strict=True)),
            num_gpus=math.ceil(sum(size * number for size, number in zip(sizes, best, strict=True))),
            whole_s=_whole_s(seconds, best, work),
        )


def _choices(pool: str, placement: str, config: RenderConfig, work: Work) -> Iterator[Gangs]:
    """One gang of each topology that fits, with its time for a request."""
    experts = pool_experts(placement, work.model)[pool]
    for topology in _topologies(placement, len(experts), config, work):
        one = Gangs(topology=topology, number=1, request_s=0.0)
        trial = Layout(placement=placement, gangs={pool: one}, num_gpus=0, whole_s=0.0).applied(config)
        services = pool_services(PoolPlan(name=pool, experts=experts, num_workers=1), trial, work)
        pairs = zip(services, work.groups, strict=True)
        total_s = sum(service.mean_s * group.num_requests for service, group in pairs)
        yield replace(one, request_s=total_s / work.num_requests)


def _topologies(
    placement: str, num_experts: int, config: RenderConfig, work: Work
) -> Iterator[TopologyConfig]:
    """Guidance and heads divided in all ways. Weights only where they do not fit otherwise, or are swapped,
    which is then quicker. A ring never: heads can be divided wherever tokens can, at less cost.
    """
    tokens = {group.tokens for group in work.groups}
    num_held = num_experts if placement == "both" else 1
    for cfg, ulysses in product((1, 2), range(1, LARGEST_GANG + 1)):
        size = cfg * ulysses
        if size > LARGEST_GANG or work.dims.num_heads % ulysses:
            continue
        divisions = {1} if config.denoise.offloads else {1, size}
        ways = [TopologyConfig(cfg=cfg, ulysses=ulysses, fsdp=fsdp) for fsdp in sorted(divisions)]
        if any(ways[0].is_too_fine(number) for number in tokens):
            continue
        fitting = [way for way in ways if fits(way, num_held, work, config)]
        yield from fitting if placement == "swap" else fitting[:1]


def _gpus_of(pool: str, gangs: Gangs, config: RenderConfig) -> float:
    """GPUs of one gang; where ranks take none, as many as it has ranks."""
    return gangs.topology.world_size * (gpus_per_worker(pool_config(config, pool), wants_gpu=True) or 1.0)


def _numbers(sizes: Sequence[float], num_gpus: float, most: int) -> Iterator[tuple[int, ...]]:
    """Numbers of gangs, one per pool, that use up the GPUs; no more than there are requests."""
    largest = min(most, int(num_gpus // sizes[0]))
    if len(sizes) == 1:
        yield from [(largest,)] if largest else []
        return
    for number in range(1, largest + 1):
        for rest in _numbers(sizes[1:], num_gpus - number * sizes[0], most):
            yield (number, *rest)


def _whole_s(request_s: Sequence[float], numbers: Sequence[int], work: Work) -> float:
    """Seconds until all requests are denoised: those of the slowest pool, and one request's in the others."""
    pools_s = [
        math.ceil(work.num_requests / number) * seconds
        for seconds, number in zip(request_s, numbers, strict=True)
    ]
    slowest = pools_s.index(max(pools_s))
    return pools_s[slowest] + sum(request_s[:slowest]) + sum(request_s[slowest + 1 :])
