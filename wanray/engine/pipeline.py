"""The pools of a job as the engines see them: stages by import string, with workers and resources."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wanray.checkpoint import Checkpoint, Component
from wanray.config import NumericsConfig, PoolConfig, RenderConfig
from wanray.digest import parts_digest
from wanray.plan.placement import pool_experts
from wanray.plan.pools import pool_config
from wanray.stage import StageSpec, Worker
from wanray.stages.configs import (
    AdmitConfig,
    ConditionConfig,
    DecodeConfig,
    DenoiseConfig,
    EncodeConfig,
    ExtendConfig,
    LatentsConfig,
)

ENCODING = 2
"""Requests in work at an encoder: the media of the next are read while those of one are encoded."""
ASKING = 8
"""Requests that a worker has under way to an endpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """Workers that all do the same stages, one after the other."""

    name: str
    stages: tuple[StageSpec, ...]
    num_workers: int = 1
    """Gangs; a worker of encode or decode is a gang of one."""
    world_size: int = 1
    """Ranks in a gang."""
    concurrency: int = 1
    """Records that a worker has in work at once, a thread for each; 1 for gangs of several ranks."""
    visits: int = 1
    """Times that each record comes here; between two it is elsewhere, so that a worker may take others."""
    in_a_row: int = 1
    """Records that a worker takes at the same visit before it turns to those of another, if so many wait."""
    shares: bool = False
    """Requests of equal prompts and media share what is made of them: the first goes alone."""
    finishes: bool = False
    """Goes on when the run is told to stop: what comes here is as good as done."""
    wants_gpu: bool = False
    """Take a GPU by default, where the cluster has any."""
    resources: dict[str, float] | None = None
    """Of one actor or rank; None: decided when the cluster is known."""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def num_seats(self) -> int:
        """Records that the whole pool can have in work."""
        return self.num_workers * self.concurrency


def resources_of(pool: PoolSpec, has_gpus: bool) -> dict[str, float]:
    """Of one actor or rank: what the config says, else a GPU where the pool wants one and there is any.

    The same for all engines: text that is encoded on another device has other pixels.
    """
    return pool.resources or ({"GPU": 1.0} if pool.wants_gpu and has_gpus else {"CPU": 1.0})


def worker_for(
    resources: dict[str, float], rank: int = 0, world_size: int = 1, rendezvous: str = ""
) -> Worker:
    """What a stage is told about a place with these Ray resources."""
    num_gpus = resources.get("GPU", 0)
    return Worker(
        device="cuda" if num_gpus > 0 else "cpu",
        num_gpus=max(1, int(num_gpus)),
        num_threads=max(1, int(resources.get("CPU", 1))),
        rank=rank,
        world_size=world_size,
        rendezvous=rendezvous,
    )


def numerics_json(numerics: NumericsConfig) -> dict[str, Any]:
    """The numerics as they stand in keys and in meta.json; what came later only where it is used."""
    later = {"text_int8": False, "attention": "exact"}
    return {name: value for name, value in asdict(numerics).items() if later.get(name, ...) != value}


def make_pools(
    config: RenderConfig,
    checkpoint: Checkpoint,
    model: dict[str, str],
    placement: str,
    run: str,
    extend: ExtendConfig | None,
) -> tuple[PoolSpec, ...]:
    """The pools of a rendering job, in the order of the data flow; `extend`: prompts are extended."""
    # images and videos go through the VAE there, which takes a CPU longer than denoising takes GPUs
    has_media, encode = bool(checkpoint.model.inputs), _encode_stages(config, checkpoint)
    wants_gpu = has_media or config.encode.t5 == "gpu"
    first = [_sharing("encode", config.pools.encode, ENCODING, *encode, wants_gpu=wants_gpu)]
    if extend is not None:
        first.insert(0, make_extend_pool(config, extend))
    first[0] = replace(first[0], stages=(_admit_stage(config, run), *first[0].stages))
    denoise = [
        _gangs(config, name, _denoise_stage(name, experts, placement, config, checkpoint))
        for name, experts in pool_experts(placement, checkpoint.model).items()
    ]
    return (*first, *denoise, _decode_pool(config, _decode_stage(config, checkpoint, model, run)))


def make_extend_pool(config: RenderConfig, extend: ExtendConfig) -> PoolSpec:
    """Those who extend prompts, or ask an endpoint to."""
    stage = StageSpec(name="extend", target="wanray.stages.extend:Extend", config=extend)
    usual = 1 if extend.is_local else ASKING
    return _sharing("extend", config.pools.extend, usual, stage, wants_gpu=extend.is_local)


def make_decode_pools(
    config: RenderConfig, checkpoint: Checkpoint, model: dict[str, str], run: str, latents_url: str
) -> tuple[PoolSpec, ...]:
    """The one pool of a job that decodes the latents of an earlier render."""
    latents = StageSpec(
        name="latents", target="wanray.stages.latents:ReadLatents", config=LatentsConfig(url=latents_url)
    )
    return (_decode_pool(config, latents, _decode_stage(config, checkpoint, model, run)),)


def _decode_pool(config: RenderConfig, *stages: StageSpec) -> PoolSpec:
    return replace(_workers("decode", config.pools.decode, *stages), finishes=True)


def _workers(name: str, pool: PoolConfig, *stages: StageSpec, wants_gpu: bool = True) -> PoolSpec:
    return PoolSpec(
        name=name,
        stages=stages,
        num_workers=pool.workers,
        wants_gpu=wants_gpu,
        resources=pool.resources,
        labels=pool.labels,
    )


def _sharing(name: str, pool: PoolConfig, usual: int, *stages: StageSpec, wants_gpu: bool) -> PoolSpec:
    """A pool whose requests may share what is made of them; `usual`: seats of a worker if nobody says."""
    workers = _workers(name, pool, *stages, wants_gpu=wants_gpu)
    return replace(workers, shares=True, concurrency=pool.concurrency or usual)


def _gangs(config: RenderConfig, name: str, stage: StageSpec) -> PoolSpec:
    pool = pool_config(config, name)
    gangs = replace(_workers(name, pool, stage), num_workers=pool.gangs, world_size=pool.topology.world_size)
    if not stage.config.swaps:
        return gangs
    return replace(gangs, visits=len(stage.config.transformers), in_a_row=config.denoise.swap_after)


def _admit_stage(config: RenderConfig, run: str) -> StageSpec:
    admit = AdmitConfig(
        output_url=config.output.url,
        run=run,
        claim=config.claim,
        claim_expires_s=config.faults.claim_expires_s,
    )
    return StageSpec(name="admit", target="wanray.stages.admit:Admit", config=admit)


def _encode_stages(config: RenderConfig, checkpoint: Checkpoint) -> tuple[StageSpec, ...]:
    encode = EncodeConfig(
        text_encoder=checkpoint.text_encoder,
        tokenizer=checkpoint.tokenizer,
        mode=config.numerics.mode,
        dtype=config.numerics.dtype,
        int8=config.numerics.text_int8,
        t5=config.encode.t5,
        digest=_cache_digest(config, checkpoint.text_encoder, checkpoint.tokenizer),
        cache_url=config.cache.url,
    )
    stages = (StageSpec(name="encode", target="wanray.stages.encode:Encode", config=encode),)
    return (*stages, _condition_stage(config, checkpoint)) if checkpoint.model.inputs else stages


def _cache_digest(config: RenderConfig, *parts: Component | str | None) -> str:
    """Tells what one checkpoint made from what another made; only a cache between runs holds both."""
    return parts_digest(*parts) if config.cache.url else ""


def _condition_stage(config: RenderConfig, checkpoint: Checkpoint) -> StageSpec:
    condition = ConditionConfig(
        vae=checkpoint.vae,
        image_encoder=checkpoint.image_encoder,
        image_processor=checkpoint.image_processor,
        model=checkpoint.model,
        mode=config.numerics.mode,
        dtype=config.numerics.dtype,
        media=config.media,
        digest=_cache_digest(config, checkpoint.vae, checkpoint.image_encoder, checkpoint.image_processor),
        cache_url=config.cache.url,
    )
    return StageSpec(name="condition", target="wanray.stages.condition:Condition", config=condition)


def _denoise_stage(
    name: str, experts: tuple[str, ...], placement: str, config: RenderConfig, checkpoint: Checkpoint
) -> StageSpec:
    denoise = DenoiseConfig(
        pool=name,
        transformers={expert: checkpoint.transformers[expert] for expert in experts},
        scheduler=checkpoint.scheduler,
        model=checkpoint.model,
        boundary=checkpoint.switch(config.numerics.mode),
        mode=config.numerics.mode,
        dtype=config.numerics.dtype,
        noise=config.numerics.noise,
        swaps=placement == "swap",
        offloads=config.denoise.offloads,
        topology=pool_config(config, name).topology,
        attention=config.attention,
        check_inputs=config.denoise.check_inputs,
        output_url=config.output.url,
        checkpoint_every_steps=config.denoise.checkpoint_every_steps,
    )
    return StageSpec(name=name, target="wanray.stages.denoise:Denoise", config=denoise)


def _decode_stage(config: RenderConfig, checkpoint: Checkpoint, model: dict[str, str], run: str) -> StageSpec:
    decode = DecodeConfig(
        vae=checkpoint.vae,
        output=config.output,
        run=run,
        model=model,
        numerics=numerics_json(config.numerics),
        media=config.media,
        tile_when_out_of_memory=config.faults.tile_when_out_of_memory,
    )
    return StageSpec(name="decode", target="wanray.stages.decode:Decode", config=decode)
