"""`numerics.mode=diffusers` equals diffusers' pipelines bit for bit; splitting changes nothing."""

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVACEPipeline,
)
from model_runs import record_of, run_stages
from PIL import Image
from transformers import CLIPVisionModel

from wanray.checkpoint import open_checkpoint
from wanray.media import probe_video, read_frames
from wanray.models.load import load_network
from wanray.models.vae import decode_latents
from wanray.stages.inputs import frame_ids

SCHEDULERS = {"unipc": UniPCMultistepScheduler, "dpm++": DPMSolverMultistepScheduler}
ROW = {
    "prompt": "a red circle &amp; a dog  moving right",
    "negative_prompt": "low quality, dark",
    "width": 64,
    "height": 64,
    "num_frames": 9,
    "seed": 7,
    "steps": 4,
    "shift": 5.0,
    "guidance": {"high": 4.0, "low": 3.0},
    "solver": "unipc",
}
SINGLE, SPLIT = [("single",)], [("high",), ("low",)]


def load_pipeline(pipeline_class, path, request, dtype):
    parts = {"vae": AutoencoderKLWan.from_pretrained(f"{path}/vae", dtype=torch.float32)}
    if open_checkpoint(path).image_encoder is not None:
        parts["image_encoder"] = CLIPVisionModel.from_pretrained(f"{path}/image_encoder", dtype=torch.float32)
    pipeline = pipeline_class.from_pretrained(path, dtype=dtype, **parts)
    pipeline.scheduler = SCHEDULERS[request.solver].from_config(
        pipeline.scheduler.config, flow_shift=request.shift
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_pipeline(pipeline_class, path, request, dtype, output_type, **conditions):
    pipeline = load_pipeline(pipeline_class, path, request, dtype)
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance.high,
        guidance_scale_2=request.guidance.low if pipeline.transformer_2 is not None else None,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        max_sequence_length=512,
        output_type=output_type,
        **conditions,
    ).frames


def check_equal(pipeline_class, path, row, pools, dtype="float32", **conditions):
    record = record_of(path, row, "diffusers", dtype)
    latents = run_stages(path, record, *pools, mode="diffusers", dtype=dtype)
    expected = run_pipeline(
        pipeline_class, path, record.request, getattr(torch, dtype), "latent", **conditions
    )
    skipped = len(row.get("reference_images", ()))
    assert torch.equal(latents, expected[:, :, skipped:])
    return latents, record.request


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize("name", ["t2v-1.3b", "t2v-a14b", "ti2v-5b"])
def test_text_to_video_equals_the_pipeline_down_to_the_frames(tiny, name, solver, dtype):
    path, pools = tiny(name), SPLIT if name == "t2v-a14b" else SINGLE
    latents, request = check_equal(WanPipeline, path, ROW | {"solver": solver}, pools, dtype)
    vae = load_network(open_checkpoint(path).vae, torch.float32, "cpu", aligned=False)
    frames = run_pipeline(WanPipeline, path, request, getattr(torch, dtype), "pt")[0]
    assert torch.equal(decode_latents(vae, latents), frames)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["i2v-14b-480p", "i2v-a14b", "ti2v-5b"])
def test_image_to_video_equals_the_pipeline(tiny, media, name, dtype):
    row, image = ROW | {"image": str(media / "first.png")}, Image.open(media / "first.png")
    pools = SPLIT if name == "i2v-a14b" else SINGLE
    check_equal(WanImageToVideoPipeline, tiny(name), row, pools, dtype, image=image)


@pytest.mark.parametrize("name", ["flf2v-14b", "i2v-a14b"])
def test_first_and_last_frame_equals_the_pipeline(tiny, media, name):
    images = {
        column: str(media / f"{name}.png")
        for column, name in {"image": "first", "last_image": "last"}.items()
    }
    opened = {column: Image.open(path) for column, path in images.items()}
    pools = SPLIT if name == "i2v-a14b" else SINGLE
    check_equal(WanImageToVideoPipeline, tiny(name), ROW | images, pools, **opened)


@pytest.mark.parametrize("inputs", ["references", "video", "masked", "all", "nothing"])
def test_vace_equals_the_pipeline(tiny, media, inputs):
    row, conditions = ROW | {"context_scale": 0.7}, {"conditioning_scale": 0.7}
    if inputs in ("references", "all"):
        paths = [str(media / f"{name}.png") for name in ("reference", "first")]
        row["reference_images"] = paths
        conditions["reference_images"] = [Image.open(path) for path in paths]
    if inputs in ("video", "masked", "all"):
        row["video"] = str(media / "video.mp4")
        conditions["video"] = pictures(media / "video.mp4")
    if inputs in ("masked", "all"):
        row["mask"] = str(media / "mask.mp4")
        conditions["mask"] = pictures(media / "mask.mp4")
    check_equal(WanVACEPipeline, tiny("vace-1.3b"), row, SINGLE, **conditions)


def pictures(path):
    data = path.read_bytes()
    return [Image.fromarray(frame) for frame in read_frames(data, range(probe_video(data).num_frames))]


@pytest.mark.parametrize("steps", [1, 2, 6], ids=lambda steps: f"{steps}steps")
@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize("mode", ["official", "diffusers"])
def test_split_experts_equal_one_process(tiny, solver, mode, steps):
    """With shift 12 one or two steps are all the high-noise expert's."""
    path = tiny("t2v-a14b")
    record = record_of(path, ROW | {"solver": solver, "steps": steps, "shift": 12.0}, mode)
    split = run_stages(path, record, ("high",), ("low",), mode=mode)
    both = run_stages(path, record, ("high", "low"), mode=mode)
    assert torch.equal(split, both)


def test_split_experts_of_image_to_video_equal_one_process(tiny, media):
    path = tiny("i2v-a14b")
    record = record_of(path, ROW | {"image": str(media / "first.png")})
    split = run_stages(path, record, ("high",), ("low",))
    assert torch.equal(split, run_stages(path, record, ("high", "low")))


def latents_of(path, row, mode="official"):
    return run_stages(path, record_of(path, row, mode), ("single",), mode=mode)


def test_official_differs_from_diffusers_in_the_sigmas(tiny):
    path = tiny("t2v-1.3b")
    assert not torch.equal(latents_of(path, ROW), latents_of(path, ROW, "diffusers"))


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"prompt": "a blue star"}, {"negative_prompt": "blue"}, {"shift": 6.0}]
)
def test_every_parameter_reaches_the_latents(tiny, change):
    path = tiny("t2v-1.3b")
    assert not torch.equal(latents_of(path, ROW), latents_of(path, ROW | change))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("i2v-14b-480p", {"image": "last.png"}),
        ("ti2v-5b", {"image": "reference.png", "max_area": 4096}),
        ("vace-1.3b", {"context_scale": 0.5}),
        ("vace-1.3b", {"last_image": "last.png"}),
        ("vace-1.3b", {"key_images": ["last.png"], "key_frames": [4]}),
        ("vace-1.3b", {"reference_images": ["reference.png"]}),
    ],
)
def test_every_condition_reaches_the_latents(tiny, media, name, change):
    def placed(row):
        for column in ("image", "last_image", "key_images", "reference_images"):
            if column in row:
                names = row[column]
                row[column] = (
                    [str(media / item) for item in names] if isinstance(names, list) else str(media / names)
                )
        return row

    base = {"image": "first.png"}
    path = tiny(name)
    before, after = latents_of(path, ROW | placed(base)), latents_of(path, ROW | placed(base | change))
    assert before.shape != after.shape or not torch.equal(before, after)


def test_references_stand_in_the_given_order_officially(tiny, media):
    path = tiny("vace-1.3b")
    paths = [str(media / f"{name}.png") for name in ("reference", "first")]
    one, other = (latents_of(path, ROW | {"reference_images": order}) for order in (paths, paths[::-1]))
    assert not torch.equal(one, other)


def test_frames_of_a_source_video_are_those_of_the_plan(tiny, media):
    row = ROW | {"video": str(media / "video.mp4"), "num_frames": 5}
    request = record_of(tiny("vace-1.3b"), row).request
    assert request.num_frames == 5
    assert frame_ids(probe_video((media / "video.mp4").read_bytes()), request) == (0, 2, 4, 6, 8)
