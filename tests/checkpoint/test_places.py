"""What the place of a checkpoint tells, and what is said where a node does not have it."""

import shutil

import pytest
import torch

from wanray.checkpoint import open_checkpoint
from wanray.errors import ConfigError
from wanray.models.load import load_network


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("models--Wan-AI--Wan2.1-I2V-14B-720P/snapshots/0a1b2c", "i2v-14b-720p"),
        ("models--Wan-AI--Wan2.1-I2V-14B-480P/snapshots/0a1b2c", "i2v-14b-480p"),
        ("720p/Wan2.1-I2V-14B-480P-Diffusers", "i2v-14b-480p"),
        ("ckpt/i2v", "i2v-14b-480p"),
    ],
)
def test_the_nearest_resolution_in_the_path_decides_between_equal_models(tiny, tmp_path, place, name):
    folder = tmp_path / place
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tiny("i2v-14b-720p"))
    assert open_checkpoint(str(folder)).model.name == name
    assert open_checkpoint(str(folder), "i2v-14b-720p").model.name == "i2v-14b-720p"


def test_a_node_without_the_files_is_named(tiny, tmp_path):
    folder = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    component = open_checkpoint(str(folder)).vae
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"vae/.*is not on node \w+.*put the checkpoint where all nodes"):
        load_network(component, torch.float32, "cpu")


def test_a_variant_beside_the_weights_is_not_read(tiny, tmp_path):
    folder = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (component,) = open_checkpoint(str(folder)).transformers.values()
    assert component.files == (str(weights),)
