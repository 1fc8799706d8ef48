"""The pools of a plan, and what is checked of them before anything starts."""

from collections.abc import Sequence
from typing import Any

from wanray.config import PoolConfig, RenderConfig
from wanray.errors import ConfigError
from wanray.plan.flops import forward_tflop, num_tokens
from wanray.plan.model import PoolPlan, ShapeGroup
from wanray.plan.placement import DENOISE_POOLS, pool_experts
from wanray.plan.speed import gpus_per_worker, pool_config
from wanray.registry import Dims, Model
from wanray.schedule import make_schedule


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
        topology.check_model(f"pools.{name}.topology", dims.num_heads, config.attention)
        if config.denoise.offloads and topology.fsdp > 1:
            raise ConfigError(
                f"pools.{name}.topology.fsdp must be 1 with denoise.offload=sequential, got {topology.fsdp}: "
                "each rank reads all weights from the host's memory"
            )
    if config.denoise.offloads and placement == "swap":
        raise ConfigError(
            "denoise.offload sequential excludes placement swap: both experts are in the host's memory "
            "anyway, so use placement=both"
        )
    unused = [
        name
        for name in DENOISE_POOLS.values()
        if name not in pools and pool_config(config, name) != PoolConfig()
    ]
    notes = [f"pools.{name} has no effect: placement {placement} uses {', '.join(pools)}" for name in unused]
    if config.engine == "local":
        several = [name for name in ("encode", *pools, "decode") if _num_workers(config, name) > 1]
        notes += [f"pools.{name} has no effect: engine local has one worker of each kind" for name in several]
    return notes


def check_shapes(config: RenderConfig, pools: Sequence[str], groups: Sequence[ShapeGroup]) -> list[str]:
    """Refuse topologies that cannot divide the requests; returns notes about ranks that idle.

    Raises:
        ConfigError: naming the pool's key, and a request's tokens.
    """
    notes, unguided = [], sum(group.num_requests for group in groups if not group.guided)
    for name in pools:
        topology = pool_config(config, name).topology
        topology.check_tokens(f"pools.{name}.topology", {group.tokens for group in groups})
        if topology.cfg > 1 and unguided:
            notes.append(
                f"pools.{name}.topology.cfg gains nothing for {unguided} requests without guidance: "
                "both halves of a gang do the same"
            )
    return notes


def _num_workers(config: RenderConfig, name: str) -> int:
    pool = pool_config(config, name)
    return pool.gangs if name.startswith("denoise") else pool.workers


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
    config: RenderConfig, model: Model, placement: str, wants_gpu: frozenset[str]
) -> tuple[PoolPlan, ...]:
    """All pools in the order of the data flow, without times.

    wants_gpu: pools without experts that take a GPU where nobody says otherwise.
    """
    first = ["extend", "encode"] if config.extension.method != "none" else ["encode"]
    actors = {name: _actors(config, name, wants_gpu) for name in (*first, "decode")}
    denoise = [_gangs(config, name, experts) for name, experts in pool_experts(placement, model).items()]
    return (*(actors[name] for name in first), *denoise, actors["decode"])


def decode_pool(config: RenderConfig) -> PoolPlan:
    """The pool of a job that only decodes."""
    return _actors(config, "decode", frozenset({"decode"}))


def _actors(config: RenderConfig, name: str, wants_gpu: frozenset[str]) -> PoolPlan:
    pool = pool_config(config, name)
    number = 1 if config.engine == "local" else _num_workers(config, name)
    return PoolPlan(name=name, num_workers=number, num_gpus=number * gpus_per_worker(pool, name in wants_gpu))


def _gangs(config: RenderConfig, name: str, experts: tuple[str, ...]) -> PoolPlan:
    pool = pool_config(config, name)
    number = 1 if config.engine == "local" else _num_workers(config, name)
    return PoolPlan(
        name=name,
        experts=experts,
        num_workers=number,
        world_size=pool.topology.world_size,
        topology=pool.topology.words,
        arranged_by="as configured" if config.denoise.gpus is None else "chosen for denoise.gpus",
        num_gpus=number * pool.topology.world_size * gpus_per_worker(pool, wants_gpu=True),
    )
