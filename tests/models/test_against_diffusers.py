"""`numerics.mode=diffusers` equals diffusers' WanPipeline bit for bit; splitting changes nothing."""

from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler, WanPipeline

from wanray.checkpoint import open_checkpoint
from wanray.config import TopologyConfig
from wanray.models.decode import decode_latents, load_vae
from wanray.records import Record, Request
from wanray.registry import Guidance
from wanray.stage import Worker
from wanray.stages.configs import DenoiseConfig, EncodeConfig
from wanray.stages.denoise import Denoise
from wanray.stages.encode import Encode
from wanray.stages.payload import Payload

SCHEDULERS = {"unipc": UniPCMultistepScheduler, "dpm++": DPMSolverMultistepScheduler}
REQUEST = Request(
    task="t2v",
    prompt="a red circle &amp; a dog  moving right",
    negative_prompt="low quality, dark",
    width=64,
    height=48,
    num_frames=9,
    fps=16.0,
    seed=7,
    steps=6,
    shift=5.0,
    guidance=Guidance(high=4.0, low=3.0),
    solver="unipc",
)


def denoise_config(path, experts, mode="diffusers", dtype="float32"):
    checkpoint = open_checkpoint(path)
    return DenoiseConfig(
        pool="denoise",
        checkpoint=checkpoint.path,
        transformers={expert: checkpoint.transformer_folder(expert) for expert in experts},
        model=checkpoint.model,
        boundary=checkpoint.boundary,
        mode=mode,
        dtype=dtype,
        noise="cpu",
        topology=TopologyConfig(),
    )


def run_stages(path, request, *pools, mode="diffusers", dtype="float32"):
    """Final latents through encode and one denoise stage per entry of `pools` (each a tuple of experts)."""
    record = Record(key="00" * 32, ids=("a",), request=request)
    stages = [Encode(EncodeConfig(checkpoint=str(path), dtype=dtype))]
    stages += [Denoise(denoise_config(path, experts, mode, dtype)) for experts in pools]
    for stage in stages:
        stage.setup(Worker())
        record = stage.run(record, lambda step, total: None)
        stage.close()
    return Payload.unpack(record.payload).state.latents_BCTHW


def run_pipeline(path, request, dtype, output_type):
    pipeline = WanPipeline.from_pretrained(path, dtype=dtype, vae=load_vae(f"{path}/vae", "cpu"))
    scheduler = SCHEDULERS[request.solver].from_config(pipeline.scheduler.config, flow_shift=request.shift)
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    two = pipeline.transformer_2 is not None
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance.high,
        guidance_scale_2=request.guidance.low if two else None,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        max_sequence_length=512,
        output_type=output_type,
    ).frames


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize("name", ["t2v-1.3b", "t2v-a14b"])
def test_latents_and_frames_equal_the_pipeline(tiny, name, solver, dtype):
    path, request = tiny(name), replace(REQUEST, solver=solver)
    pools = [("high",), ("low",)] if name == "t2v-a14b" else [("single",)]
    latents = run_stages(path, request, *pools, dtype=dtype)
    assert torch.equal(latents, run_pipeline(path, request, getattr(torch, dtype), "latent"))
    frames = decode_latents(load_vae(f"{path}/vae", "cpu"), latents)
    assert torch.equal(frames, run_pipeline(path, request, getattr(torch, dtype), "pt")[0])


@pytest.mark.parametrize("steps", [1, 2, 6], ids=lambda steps: f"{steps}steps")
@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize("mode", ["official", "diffusers"])
def test_split_experts_equal_one_process(tiny, solver, mode, steps):
    """With shift 12 one or two steps are all the high-noise expert's."""
    request = replace(REQUEST, solver=solver, steps=steps, shift=12.0)
    split = run_stages(tiny("t2v-a14b"), request, ("high",), ("low",), mode=mode)
    both = run_stages(tiny("t2v-a14b"), request, ("high", "low"), mode=mode)
    assert torch.equal(split, both)


def test_official_differs_from_diffusers_in_the_sigmas(tiny):
    official = run_stages(tiny("t2v-1.3b"), REQUEST, ("single",), mode="official")
    diffusers = run_stages(tiny("t2v-1.3b"), REQUEST, ("single",), mode="diffusers")
    assert not torch.equal(official, diffusers)


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"prompt": "a blue star"}, {"negative_prompt": "blue"}, {"shift": 6.0}]
)
def test_every_parameter_reaches_the_latents(tiny, change):
    base = run_stages(tiny("t2v-1.3b"), REQUEST, ("single",))
    changed = run_stages(tiny("t2v-1.3b"), replace(REQUEST, **change), ("single",))
    assert not torch.equal(base, changed)
