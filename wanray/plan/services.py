"""Seconds that a request takes in a pool: measured, scaled from what was measured, or by a FLOP model."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wanray.config import RenderConfig, TopologyConfig
from wanray.plan.encoding import encode_work_s
from wanray.plan.model import PoolPlan, ShapeGroup
from wanray.plan.profile import Measured, Profile
from wanray.plan.speed import TF32_SHARE, gang_speedup, gpus_per_worker, pool_config, pool_tflops, speed_words
from wanray.plan.work import Work

MEASURED, GIVEN, SCALED, FLOPS, UNKNOWN = ("measured", "given", "scaled", "FLOP model", "not estimated")
"""What a time rests on, the surest first."""
_SUREST_FIRST = (MEASURED, GIVEN, SCALED, FLOPS, UNKNOWN)
DENOISE_STAGES = ("denoise", "denoise_high", "denoise_low")
_STAGES = {"extend": ("extend",), "encode": ("encode", "condition"), "decode": ("decode",)}
"""Of pools without experts; the first of them is always there."""
_DECODE_FLOP = {"wan2.1": 929, "wan2.2": 284}
"""Per pixel of a frame and square of the last channels: counted for decoders of 96 and of 256 channels."""


ONE_RANK = TopologyConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The times of requests of one group in one pool."""

    mean_s: float
    """Seconds of a worker per request: what it costs."""
    clip_s: float
    """Seconds that a request spends there: what somebody waits."""
    basis: str


@dataclass(frozen=True, slots=True)
class _Target:
    """What is asked of a profile: seconds of a stage for one group."""

    stages: tuple[str, ...]
    group: ShapeGroup
    amount: Callable[[Measured], float]
    """The work of what was measured, in the unit of `wanted`."""
    wanted: float
    num_steps: int = 0
    topology: TopologyConfig = ONE_RANK

    def is_same(self, entry: Measured) -> bool:
        """Whether it was measured for just this, however many steps."""
        group = self.group
        shape = (group.width, group.height, group.num_frames)
        same_gang = entry.guided == group.guided and self.is_arranged_as(entry)
        return (
            entry.stage == self.stages[0]
            and (entry.width, entry.height, entry.num_frames) == shape
            and (same_gang or not self.num_steps)
        )

    def distance(self, entry: Measured) -> tuple[bool, bool, float, int]:
        """Of what was measured to what is asked for: the nearest scales best."""
        apart = abs(math.log(self.amount(entry) / self.wanted))
        steps_apart = abs(entry.num_steps - self.num_steps)
        return not self.is_same(entry), not self.is_arranged_as(entry), apart, steps_apart

    def is_arranged_as(self, entry: Measured) -> bool:
        """Whether its ranks were arranged so; old profiles tell only how many there were."""
        same_size = entry.world_size == self.topology.world_size
        return same_size and entry.topology in ("", self.topology.words)

    def slower(self, entry: Measured) -> float:
        """How many times as long a gang takes as the one that was measured."""
        if self.is_arranged_as(entry):
            return 1.0
        return gang_speedup(entry.gang, entry.guided) / gang_speedup(self.topology, self.group.guided)


def pool_services(pool: PoolPlan, config: RenderConfig, work: Work) -> tuple[Service, ...]:
    """One per group of `work`, in their order."""
    if pool.experts:
        return tuple(_denoise(pool, group, config, work) for group in work.groups)
    make = {"extend": _extend, "encode": _encode, "decode": _decode}[pool.name]
    return tuple(make(group, config, work) for group in work.groups)


def basis_words(pool: PoolPlan, services: Sequence[Service], config: RenderConfig, work: Work) -> str:
    """What the times of a pool rest on, for people; the least sure one decides."""
    basis = least_sure(service.basis for service in services)
    if basis == GIVEN:
        return "estimate.encode_s"
    if basis == FLOPS:
        half = f" x {TF32_SHARE:g} (TF32)" if pool.name == "decode" and _on_gpu(pool, config, work) else ""
        of_text = " of text alone" if pool.name == "encode" and work.model.inputs else ""
        return f"FLOP model{of_text}: {speed_words(config, pool.name, _on_gpu(pool, config, work))}{half}"
    if basis == UNKNOWN or work.profile is None:
        return basis
    link = "from" if basis == SCALED else "in"
    return f"{basis} {link} run {work.profile.run}, {work.profile.num_clips} clips"


def least_sure(bases: Iterable[str]) -> str:
    """Of several words the one that promises least."""
    return max(bases, key=_SUREST_FIRST.index, default=UNKNOWN)


def _denoise(pool: PoolPlan, group: ShapeGroup, config: RenderConfig, work: Work) -> Service:
    num_steps, tflop = group.steps_of(pool.experts), group.tflop_of(pool.experts)
    if not num_steps:
        return Service(mean_s=0.0, clip_s=0.0, basis=MEASURED)
    stages = (pool.name, *(stage for stage in DENOISE_STAGES if stage != pool.name))
    topology = pool_config(config, pool.name).topology
    target = _Target(stages, group, lambda entry: entry.tflop, tflop, num_steps, topology)
    found = _from_profile(work.profile, target, pool.name)
    if found is not None:
        return found
    speed = pool_tflops(config, pool.name, _on_gpu(pool, config, work))
    seconds = tflop / (speed * gang_speedup(topology, group.guided))
    seconds += _swaps_s(pool, config, work) + _offload_s(num_steps, group.guided, topology, config, work)
    return Service(mean_s=seconds, clip_s=seconds, basis=FLOPS)


def _swaps_s(pool: PoolPlan, config: RenderConfig, work: Work) -> float:
    """A request's share of swapping experts to and fro; what was measured has it in it."""
    if config.placement != "swap" or len(pool.experts) == 1:
        return 0.0
    gangs = pool_config(config, pool.name)
    in_a_row = max(1, min(config.denoise.swap_after, work.num_requests // gangs.gangs))
    swap_s = work.expert_bytes / gangs.topology.fsdp / (config.estimate.host_gb_per_s * 1e9)
    return len(pool.experts) * swap_s / in_a_row


def _offload_s(
    num_steps: int, guided: bool, topology: TopologyConfig, config: RenderConfig, work: Work
) -> float:
    """In which the blocks of a request's forwards travel to the GPU, which waits for them."""
    if not config.denoise.offloads:
        return 0.0
    num_forwards = num_steps * (2 if guided and topology.cfg == 1 else 1)
    return num_forwards * work.expert_bytes / (config.estimate.host_gb_per_s * 1e9)


def _extend(group: ShapeGroup, config: RenderConfig, work: Work) -> Service:
    return _per_text("extend", group, work) or Service(mean_s=0.0, clip_s=0.0, basis=UNKNOWN)


def _encode(group: ShapeGroup, config: RenderConfig, work: Work) -> Service:
    found = _per_text("encode", group, work) if config.estimate.encode_s is None else None
    if found is not None:
        return found
    on_gpu = _on_gpu(PoolPlan(name="encode", num_workers=1), config, work)
    seconds = encode_work_s(config, on_gpu, work.num_encoder_weights, work.text_bytes)
    return Service(
        mean_s=seconds / work.num_requests,
        clip_s=seconds / max(1, len(work.text_bytes)),
        basis=FLOPS if config.estimate.encode_s is None else GIVEN,
    )


def _decode(group: ShapeGroup, config: RenderConfig, work: Work) -> Service:
    found = _by_pixels("decode", "decode", group, work)
    if found is not None:
        return found
    pool = PoolPlan(name="decode", num_workers=1)
    flop = _DECODE_FLOP[work.model.vae] * work.vae_channels**2 * group.num_pixels
    speed = pool_tflops(config, "decode", _on_gpu(pool, config, work))
    seconds = flop / 1e12 / speed / (TF32_SHARE if _on_gpu(pool, config, work) else 1.0)
    return Service(mean_s=seconds, clip_s=seconds, basis=FLOPS)


def _on_gpu(pool: PoolPlan, config: RenderConfig, work: Work) -> bool:
    if pool.name == "encode" and config.encode.t5 == "cpu":
        return False
    wants_gpu = bool(pool.experts) or pool.name in work.wants_gpu
    return gpus_per_worker(pool_config(config, pool.name), wants_gpu) > 0


def _per_text(pool: str, group: ShapeGroup, work: Work) -> Service | None:
    """Of stages whose work requests of equal prompts share: as in the run, but for how many share it."""
    parts = [part for stage in _STAGES[pool] if (part := _by_pixels(pool, stage, group, work)) is not None]
    if not parts or work.profile is None:
        return None
    sharing = work.profile.requests_per_text / work.requests_per_text
    return Service(
        mean_s=sharing * sum(part.mean_s for part in parts),
        clip_s=sum(part.clip_s for part in parts),
        basis=least_sure(part.basis for part in parts),
    )


def _by_pixels(pool: str, stage: str, group: ShapeGroup, work: Work) -> Service | None:
    """Of one stage; those that work on texts do not ask for pixels."""
    if stage in ("encode", "extend"):
        return _of_texts(work.profile, stage, pool, group)
    target = _Target((stage,), group, lambda entry: entry.num_pixels, group.num_pixels)
    return _from_profile(work.profile, target, pool)


def _of_texts(profile: Profile | None, stage: str, pool: str, group: ShapeGroup) -> Service | None:
    """As measured for the texts of this shape, else over all."""
    entries = [entry for entry in profile.measured if entry.stage == stage] if profile else []
    shape = (group.width, group.height, group.num_frames)
    same = [entry for entry in entries if (entry.width, entry.height, entry.num_frames) == shape]
    entries = same or entries
    if not entries or profile is None:
        return None
    count = sum(entry.count for entry in entries)
    mean_s = sum(entry.mean_s * entry.count for entry in entries) / count
    clip_s = sum(entry.median_s * entry.count for entry in entries) / count
    share = profile.worker_share.get(pool, 1.0)
    return Service(mean_s=mean_s * share, clip_s=clip_s, basis=MEASURED)


def _from_profile(profile: Profile | None, target: _Target, pool: str) -> Service | None:
    entries = [
        entry
        for entry in (profile.measured if profile else ())
        if entry.stage in target.stages and target.amount(entry)
    ]
    if not entries or profile is None:
        return None
    nearest = min(entries, key=target.distance)
    is_same = target.is_same(nearest)
    by_steps = is_same and target.num_steps > 0
    factor = target.num_steps / nearest.num_steps if by_steps else target.wanted / target.amount(nearest)
    factor *= target.slower(nearest)
    share = profile.worker_share.get(pool, profile.worker_share.get(nearest.stage, 1.0))
    return Service(
        mean_s=nearest.mean_s * factor * share,
        clip_s=nearest.median_s * factor,
        basis=MEASURED if is_same else SCALED,
    )
