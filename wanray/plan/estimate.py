"""What a config makes of the work that there is: pools, times, GPUs, cost, storage. A pure function."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wanray.config import RenderConfig
from wanray.plan.encoding import workers_to_feed
from wanray.plan.line import Batch, Station, line_s
from wanray.plan.model import Estimate, PoolPlan, ShapeGroup
from wanray.plan.pools import choose_pools
from wanray.plan.services import (
    UNKNOWN,
    Service,
    basis_words,
    least_sure,
    pool_services,
)
from wanray.plan.speed import pool_config
from wanray.plan.storage import clip_bytes, state_bytes, storage_words
from wanray.plan.work import Work

HANDOFF_S = 0.025
"""From one request to the next of a worker on Ray: what stages that sleep 1 s and 0.2 s take more than that
(`make bench`)."""
LOCAL_WAITING = 2
"""Requests between two pools of the local engine."""
_Times = tuple[tuple[Service, ...], ...]
"""Of each pool, of each group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimated:
    """The parts of a plan that have times."""

    groups: tuple[ShapeGroup, ...]
    pools: tuple[PoolPlan, ...]
    estimate: Estimate


def make_estimate(config: RenderConfig, work: Work, placement: str) -> Estimated:
    """Everything that follows from a config and its placement; `work` is the same for all configs."""
    pools = choose_pools(config, work.model, placement, work.wants_gpu)
    if not work.num_requests:
        return Estimated(groups=(), pools=pools, estimate=Estimate(currency=config.estimate.currency))
    times = tuple(pool_services(pool, config, work) for pool in pools)
    groups = tuple(_with_times(index, pools, times, config, work) for index in range(len(work.groups)))
    pools = _with_busy(pools, times, config, work)
    return Estimated(groups=groups, pools=pools, estimate=_whole(config, work, groups, pools, times))


def _with_times(
    index: int, pools: Sequence[PoolPlan], times: _Times, config: RenderConfig, work: Work
) -> ShapeGroup:
    group = work.groups[index]
    of_pools = [services[index] for services in times]
    of_gangs = [service for service, pool in zip(of_pools, pools, strict=True) if pool.experts]
    fps = config.defaults.fps or work.model.defaults.fps
    return replace(
        group,
        clip_s=sum(service.clip_s for service in of_pools),
        gang_s=sum(service.mean_s for service in of_gangs),
        basis=least_sure(service.basis for service in of_gangs),
        clip_bytes=clip_bytes(group, fps, config.output, work),
    )


def _with_busy(
    pools: Sequence[PoolPlan], times: _Times, config: RenderConfig, work: Work
) -> tuple[PoolPlan, ...]:
    total_s = [_total_s(services, work.groups) for services in times]
    denoise_s = max(
        seconds / pool.num_workers for seconds, pool in zip(total_s, pools, strict=True) if pool.experts
    )
    return tuple(
        replace(
            pool,
            busy_s=seconds / pool.num_workers,
            mean_s=seconds / work.num_requests,
            basis=basis_words(pool, services, config, work),
            needed=_needed(pool, services, seconds, denoise_s, work),
        )
        for pool, services, seconds in zip(pools, times, total_s, strict=True)
    )


def _total_s(services: Sequence[Service], groups: Sequence[ShapeGroup]) -> float:
    pairs = zip(services, groups, strict=True)
    return sum(service.mean_s * group.num_requests for service, group in pairs)


def _needed(
    pool: PoolPlan, services: Sequence[Service], total_s: float, denoise_s: float, work: Work
) -> int | None:
    """No more than there are pieces of work."""
    if pool.experts or least_sure(service.basis for service in services) == UNKNOWN:
        return None
    num_pieces = work.num_requests if pool.name == "decode" else len(work.text_bytes)
    return max(1, min(workers_to_feed(total_s, denoise_s), num_pieces))


def _whole(
    config: RenderConfig,
    work: Work,
    groups: Sequence[ShapeGroup],
    pools: Sequence[PoolPlan],
    times: _Times,
) -> Estimate:
    handoff_s = HANDOFF_S if config.engine == "ray" else 0.0
    whole_s = line_s([_station(pool, config) for pool in pools], _batches(groups, times, handoff_s))
    measured_s = work.profile.start_s if work.profile is not None else 0.0
    estimate = Estimate(
        whole_s=whole_s,
        start_s=measured_s if config.estimate.start_s is None else config.estimate.start_s,
        num_gpus=_num_gpus(pools, config),
        currency=config.estimate.currency,
        clips_per_hour=3600 * work.num_requests / whole_s if whole_s else 0.0,
        busiest=max(pools, key=lambda pool: pool.busy_s).name,
        storage_bytes=sum(group.clip_bytes * group.num_requests for group in groups),
        storage_basis=storage_words(config.output, work),
        work_bytes=_work_bytes(config, work, groups, pools),
    )
    price = config.estimate.price_per_gpu_hour
    return replace(estimate, cost=None if price is None else price * estimate.gpu_hours)


def _batches(groups: Sequence[ShapeGroup], times: _Times, handoff_s: float) -> list[Batch]:
    return [
        Batch(
            num_requests=group.num_requests,
            seconds=tuple(services[index].mean_s + handoff_s for services in times),
        )
        for index, group in enumerate(groups)
    ]


def _station(pool: PoolPlan, config: RenderConfig) -> Station:
    seats = pool.num_workers * (pool_config(config, pool.name).concurrency or 1)
    if config.engine == "local":
        waiting = LOCAL_WAITING
    else:
        waiting = 2 * (seats + 2) if config.ray.rows_ahead is None else config.ray.rows_ahead
    return Station(num_workers=pool.num_workers, num_waiting=waiting)


def _num_gpus(pools: Sequence[PoolPlan], config: RenderConfig) -> float:
    """The local engine's pools share one."""
    num_gpus = [pool.num_gpus for pool in pools]
    return max(num_gpus) if config.engine == "local" else sum(num_gpus)


def _work_bytes(
    config: RenderConfig, work: Work, groups: Sequence[ShapeGroup], pools: Sequence[PoolPlan]
) -> int:
    """States of the largest clips in every gang, where they are stored."""
    if not config.denoise.checkpoint_every_steps:
        return 0
    num_gangs = sum(pool.num_workers for pool in pools if pool.experts)
    return num_gangs * max(state_bytes(group, work.model) for group in groups)
