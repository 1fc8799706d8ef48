"""Tiny checkpoints: every model, the same bytes each time, and diffusers' own pipelines run them."""

import hashlib
import json

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wanray.errors import ConfigError
from wanray.models.tiny import write_tiny
from wanray.registry import MODELS

PIPELINES = {
    "WanPipeline": diffusers.WanPipeline,
    "WanImageToVideoPipeline": diffusers.WanImageToVideoPipeline,
    "WanVACEPipeline": diffusers.WanVACEPipeline,
}
SIZE = {"height": 32, "width": 32, "num_frames": 5}
WEIGHTS = {
    "t2v-1.3b": "585616ac5f5518f7",
    "t2v-14b": "585616ac5f5518f7",
    "t2v-a14b": "d6403330c3d63832",
}
"""Digests of all tensors, as first released: renders of these checkpoints are compared across versions."""


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tensors(folder):
    """All tensors, by file and name."""
    paths = sorted(folder.rglob("*.safetensors"))
    return {f"{path.parent.name}/{key}": value for path in paths for key, value in load_file(path).items()}


def digest(folder):
    total = hashlib.sha256()
    for name, tensor in sorted(tensors(folder).items()):
        total.update(f"{name} {list(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize("name", MODELS)
def test_same_bytes_each_time_and_under_a_megabyte(tiny, tmp_path, name):
    write_tiny(name, tmp_path)
    assert files(tiny(name)) == files(tmp_path)
    assert sum(map(len, files(tmp_path).values())) < 1_000_000


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_first_checkpoints_keep_their_weights(tiny, name):
    assert digest(tiny(name)) == WEIGHTS[name]


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("t2")])
def test_every_parameter_of_the_conditional_networks_is_random(tiny, name):
    parts = ("transformer/", "transformer_2/", "image_encoder/")
    for key, value in tensors(tiny(name)).items():
        if key.startswith(parts) and value.is_floating_point():
            assert len(value.unique()) > 1, key


@pytest.mark.parametrize("name", MODELS)
def test_networks_have_the_channels_of_the_registry(tiny, name):
    model, config = MODELS[name], json.loads((tiny(name) / "transformer/config.json").read_text())
    assert (config["in_channels"], config["out_channels"]) == (model.dims.in_channels, model.latent_channels)
    vae = json.loads((tiny(name) / "vae/config.json").read_text())
    assert (vae["z_dim"], vae["scale_factor_spatial"]) == (model.latent_channels, model.spatial_stride)
    assert (tiny(name) / "image_encoder").exists() == model.has_image_encoder
    assert (tiny(name) / "transformer_2").exists() == (model.boundary is not None)


def arguments(name, pipeline_class):
    """What the pipeline needs besides a prompt."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    first, last = (Image.fromarray(image) for image in pixels)
    if pipeline_class is diffusers.WanVACEPipeline:
        mask = [Image.new("L", (32, 32), 255)] * 5
        return {"video": [first] * 5, "mask": mask, "reference_images": [last], "conditioning_scale": 0.7}
    if pipeline_class is diffusers.WanImageToVideoPipeline:
        return {"image": first} | ({"last_image": last} if name == "flf2v-14b" else {})
    return {}


CASES = [(name, None) for name in MODELS] + [("ti2v-5b", "WanImageToVideoPipeline")]


@pytest.mark.parametrize(("name", "class_name"), CASES)
def test_pipeline_runs(tiny, name, class_name):
    index = json.loads((tiny(name) / "model_index.json").read_text())
    pipeline_class = PIPELINES[class_name or index["_class_name"]]
    pipeline = pipeline_class.from_pretrained(tiny(name), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    call = {"prompt": "a red circle", "num_inference_steps": 2, "generator": generator, "output_type": "np"}
    frames = pipeline(**call, **SIZE, **arguments(name, pipeline_class)).frames[0]
    assert frames.shape == (5, 32, 32, 3)
    assert np.isfinite(frames).all()
    assert frames.std() > 0.01
    assert pipeline.config.get("boundary_ratio") == MODELS[name].boundary


def test_other_folders_are_not_written_into(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and no checkpoint"):
        write_tiny("t2v-1.3b", tmp_path)
