"""Helpers of the model tests: from a manifest row to final latents, through planner and stages."""

import json
from dataclasses import asdict, replace

from wanray.checkpoint import open_checkpoint
from wanray.config import DefaultsConfig, NumericsConfig, TopologyConfig
from wanray.manifest import Resolver, resolve
from wanray.manifest.arrays import table_of
from wanray.records import Record
from wanray.registry import DIFFUSERS_DEFAULTS
from wanray.stage import Worker
from wanray.stages.condition import Condition
from wanray.stages.configs import ConditionConfig, DenoiseConfig, EncodeConfig
from wanray.stages.denoise import Denoise
from wanray.stages.encode import Encode
from wanray.stages.payload import Payload

ALONE = TopologyConfig()


def silent(step, total):
    """A report that nobody reads."""
    return False


def record_of(path, row, mode="official", dtype="float32"):
    """The planned record of one manifest row."""
    checkpoint = open_checkpoint(path)
    official = checkpoint.model.defaults
    if mode == "diffusers":
        official = replace(DIFFUSERS_DEFAULTS, shift=checkpoint.flow_shift)
    resolver = Resolver(
        model=checkpoint.model,
        model_json={"name": checkpoint.model.name, "digest": "d"},
        numerics=asdict(NumericsConfig(mode=mode, dtype=dtype)),
        official=official,
        defaults=DefaultsConfig(),
        sweep={},
        keep=lambda sha256, content: "",
    )
    (piece,) = resolve(iter([table_of([row])]), resolver)
    assert piece.problems == []
    (plan,) = piece.requests.to_pylist()
    assert json.loads(plan["request"])["seed"] == row["seed"]
    return Record.from_plan(plan)


def denoise_config(checkpoint, experts, mode, dtype="float32", topology=ALONE, swaps=False, offloads=False):
    return DenoiseConfig(
        pool="denoise",
        transformers={expert: checkpoint.transformers[expert] for expert in experts},
        scheduler=checkpoint.scheduler,
        model=checkpoint.model,
        boundary=checkpoint.switch(mode),
        mode=mode,
        dtype=dtype,
        noise="cpu",
        swaps=swaps,
        offloads=offloads,
        topology=topology,
        attention="auto",
        check_inputs=True,
        output_url="memory://states",
        checkpoint_every_steps=0,
    )


def make_stages(path, pools, mode="official", dtype="float32"):
    """Encode, condition and one denoise stage per entry of `pools` (each a tuple of experts)."""
    checkpoint = open_checkpoint(path)
    encode = EncodeConfig(
        text_encoder=checkpoint.text_encoder, tokenizer=checkpoint.tokenizer, mode=mode, dtype=dtype
    )
    condition = ConditionConfig(
        vae=checkpoint.vae,
        image_encoder=checkpoint.image_encoder,
        image_processor=checkpoint.image_processor,
        model=checkpoint.model,
        mode=mode,
        dtype=dtype,
    )
    denoise = [Denoise(denoise_config(checkpoint, experts, mode, dtype)) for experts in pools]
    return [Encode(encode), Condition(condition), *denoise]


def denoised_alone(path, record, *pools, mode="official", dtype="float32"):
    """Final latents [1, C, T, H, W] of a record that is encoded, by this process."""
    checkpoint = open_checkpoint(path)
    for experts in pools:
        stage = Denoise(denoise_config(checkpoint, experts, mode, dtype))
        stage.setup(Worker())
        record = stage.run(record, silent)
        stage.close()
    return Payload.unpack(record.payload).state.latents_BCTHW


def run_stages(path, record, *pools, mode="official", dtype="float32"):
    """Final latents [1, C, T, H, W]."""
    for stage in make_stages(path, pools, mode, dtype):
        stage.setup(Worker())
        record = stage.run(record, silent)
        stage.close()
    return Payload.unpack(record.payload).state.latents_BCTHW
