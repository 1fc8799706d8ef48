"""Placement and pools: which workers do which steps, and how long they will be busy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wanray.config import EstimateConfig, PoolConfig, RenderConfig
from wanray.errors import ConfigError
from wanray.plan.encoding import workers_to_feed
from wanray.plan.flops import forward_tflop, num_tokens
from wanray.plan.model import PoolPlan, ShapeGroup
from wanray.registry import Dims, Model
from wanray.schedule import make_schedule

DENOISE_POOLS = {"single": "denoise", "high": "denoise_high", "low": "denoise_low"}


def choose_placement(config: RenderConfig, model: Model) -> str:
    """`single`, `split` or `both`; under `auto` two experts get a pool each on Ray and share one locally."""
    if len(model.experts) == 1:
        return "single"
    if config.placement != "auto":
        return config.placement
    return "split" if config.engine == "ray" else "both"


def pool_experts(placement: str, model: Model) -> dict[str, tuple[str, ...]]:
    """Denoise pool -> experts it holds, in the order of work."""
    if placement == "split":
        return {DENOISE_POOLS[expert]: (expert,) for expert in model.experts}
    return {"denoise": model.experts}


def check_pools(config: RenderConfig, placement: str, dims: Dims, pools: Sequence[str]) -> list[str]:
    """Refuse topologies that cannot work; returns notes about settings that have no effect.

    Raises:
        ConfigError: naming the pool's key, the value and the rule.
    """
    for name in pools:
        topology = pool_config(config, name).topology
        if config.engine == "local" and topology.world_size > 1:
            raise ConfigError(
                f"pools.{name}.topology has {topology.world_size} ranks, but engine local has one process"
            )
        if dims.num_heads % topology.ulysses:
            raise ConfigError(
                f"pools.{name}.topology.ulysses must divide the model's {dims.num_heads} heads, "
                f"got {topology.ulysses}"
            )
    unused = [
        name
        for name in DENOISE_POOLS.values()
        if name not in pools and pool_config(config, name) != PoolConfig()
    ]
    notes = [f"pools.{name} has no effect: placement {placement} uses {', '.join(pools)}" for name in unused]
    if any(pool_config(config, name).topology.world_size > 1 for name in pools):
        notes.append(
            "ranks of a gang repeat each other's work in this version: it gains nothing yet over more gangs"
        )
    return notes


def pool_config(config: RenderConfig, name: str) -> PoolConfig:
    """The config of the pool called `name`."""
    return getattr(config.pools, name)


def shape_groups(
    costs: dict[tuple[Any, ...], int], model: Model, dims: Dims, boundary: float | None, mode: str
) -> tuple[ShapeGroup, ...]:
    """One group per kind of request, in the order of `costs` (`wanray.plan.build.COST` -> number)."""
    return tuple(_group(key, number, model, dims, boundary, mode) for key, number in costs.items())


def _group(
    key: tuple[Any, ...], number: int, model: Model, dims: Dims, boundary: float | None, mode: str
) -> ShapeGroup:
    width, height, num_frames, steps, shift, solver, guided = key
    high = make_schedule(steps, shift, solver, mode).steps_high(boundary)
    per_expert = {"high": high, "low": steps - high} if boundary is not None else {"single": steps}
    tokens = num_tokens(width, height, num_frames, model)
    return ShapeGroup(
        width=width,
        height=height,
        num_frames=num_frames,
        steps=steps,
        shift=shift,
        solver=solver,
        guided=guided,
        num_requests=number,
        tokens=tokens,
        steps_per_expert=per_expert,
        tflop_per_clip=steps * (1 + guided) * forward_tflop(tokens, dims),
    )


def choose_pools(
    config: RenderConfig,
    model: Model,
    placement: str,
    groups: Sequence[ShapeGroup],
    encode_s: float,
    num_texts: int,
) -> tuple[PoolPlan, ...]:
    """All pools in the order of the data flow, with their estimated work.

    encode_s: what there is to encode, in seconds of one worker.
    num_texts: in how many pieces it comes.
    """
    denoise = [
        _denoise_pool(name, pool_config(config, name), experts, groups, config.estimate)
        for name, experts in pool_experts(placement, model).items()
    ]
    needed = workers_to_feed(encode_s, max(pool.busy_s for pool in denoise))
    encode = _plain_pool("encode", config.pools.encode)
    busy_s = encode_s / encode.num_workers
    first = [replace(encode, busy_s=busy_s, needed=max(1, min(needed, num_texts)))]
    if config.extension.method != "none":
        first.insert(0, _plain_pool("extend", config.pools.extend))
    return (*first, *denoise, decode_pool(config))


def decode_pool(config: RenderConfig) -> PoolPlan:
    """The pool of a job that only decodes."""
    return _plain_pool("decode", config.pools.decode)


def _plain_pool(name: str, pool: PoolConfig) -> PoolPlan:
    return PoolPlan(name=name, experts=(), num_workers=pool.workers, world_size=1, busy_s=0.0)


def _denoise_pool(
    name: str,
    pool: PoolConfig,
    experts: tuple[str, ...],
    groups: Sequence[ShapeGroup],
    estimate: EstimateConfig,
) -> PoolPlan:
    share = [
        group.num_requests
        * group.tflop_per_clip
        * sum(group.steps_per_expert.get(expert, 0) for expert in experts)
        / group.steps
        for group in groups
    ]
    speed = estimate.peak_tflops * estimate.mfu * pool.gangs
    return PoolPlan(
        name=name,
        experts=experts,
        num_workers=pool.gangs,
        world_size=pool.topology.world_size,
        busy_s=sum(share) / speed,
    )
