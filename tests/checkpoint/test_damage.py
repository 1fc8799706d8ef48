"""Incomplete and damaged checkpoints: the message names the file and what to do."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wanray.checkpoint import open_checkpoint
from wanray.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "golden"
DIT, VAE = "diffusion_pytorch_model.safetensors", "Wan2.1_VAE.pth"
TEXT = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 11361920418\n"
AGAIN = "copy or download the checkpoint again"


def remove(name):
    return lambda folder: (folder / name).unlink()


def truncate(name, size):
    return lambda folder: os.truncate(folder / name, size)


def overwrite(name, content):
    return lambda folder: (folder / name).write_bytes(content.encode())


def break_index(folder):
    index = folder / "high_noise_model" / f"{DIT}.index.json"
    index.write_text(json.dumps({"metadata": {}}))


@pytest.mark.parametrize(
    ("case", "damage", "words"),
    [
        ("t2v-1.3B", remove("config.json"), ["has no model_index.json", "config.json", "official"]),
        ("t2v-1.3B", overwrite("config.json", "{ bro"), ["config.json is not JSON", AGAIN]),
        ("t2v-1.3B", overwrite("config.json", "[]"), ["config.json is not a JSON object", AGAIN]),
        ("t2v-1.3B", overwrite("config.json", '{"a": 1}'), ["this version renders"]),
        ("t2v-1.3B", remove(DIT), [f"{DIT} is missing", AGAIN]),
        ("t2v-1.3B", truncate(DIT, 900_000), [f"{DIT} (900000 bytes) is no whole safetensors file", AGAIN]),
        ("t2v-1.3B", truncate(DIT, 0), [f"{DIT} (0 bytes) is no whole", AGAIN]),
        ("t2v-1.3B", overwrite(DIT, POINTER), [DIT, "a git-LFS pointer", "git lfs pull"]),
        ("t2v-1.3B", remove(VAE), [f"{VAE} is missing", AGAIN]),
        ("t2v-1.3B", truncate(VAE, 1_000_000), [f"{VAE} (1000000 bytes) is no whole PyTorch file", AGAIN]),
        ("t2v-1.3B", overwrite(VAE, "<html>"), [f"{VAE} (6 bytes) is no whole PyTorch file", AGAIN]),
        ("t2v-1.3B", overwrite(VAE, POINTER), [VAE, "a git-LFS pointer", "git lfs pull"]),
        ("t2v-1.3B", remove(TEXT), [f"{TEXT} is missing", AGAIN]),
        ("t2v-1.3B", truncate(TEXT, 9), [f"{TEXT} (9 bytes) is no whole PyTorch file", AGAIN]),
        ("ti2v-5B", remove("Wan2.2_VAE.pth"), ["Wan2.2_VAE.pth is missing", AGAIN]),
        ("i2v-14B", remove(CLIP), [f"{CLIP} is missing", AGAIN]),
        ("i2v-14B", truncate(CLIP, 100_000), [f"{CLIP} (100000 bytes) is no whole PyTorch file", AGAIN]),
        (
            "t2v-1.3B",
            lambda folder: shutil.rmtree(folder / "google"),
            ["google/umt5-xxl/tokenizer.json", "is missing", AGAIN],
        ),
        (
            "t2v-1.3B",
            overwrite("google/umt5-xxl/spiece.model", POINTER),
            ["google/umt5-xxl/spiece.model", "a git-LFS pointer", "git lfs pull"],
        ),
        ("t2v-A14B", break_index, [f"high_noise_model/{DIT}.index.json has no weight_map", AGAIN]),
        (
            "t2v-A14B",
            remove(f"high_noise_model/{DIT}.index.json"),
            [f"high_noise_model/{DIT}.index.json is missing", AGAIN],
        ),
        (
            "t2v-A14B",
            remove("low_noise_model/diffusion_pytorch_model-00002-of-00002.safetensors"),
            ["low_noise_model/diffusion_pytorch_model-00002-of-00002.safetensors is missing", AGAIN],
        ),
        (
            "i2v-A14B",
            lambda folder: shutil.rmtree(folder / "low_noise_model"),
            ["low_noise_model/config.json is missing", AGAIN],
        ),
        ("i2v-A14B", remove("high_noise_model/config.json"), ["high_noise_model/config.json is missing"]),
    ],
)
def test_official(tmp_path, case, damage, words):
    folder = shutil.copytree(GOLDEN / case / "checkpoint", tmp_path / "broken")
    damage(folder)
    assert_refused(folder, "model.path", *words)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("i2v-14b-480p", remove("image_encoder/config.json"), ["image_encoder/config.json is missing"]),
        (
            "i2v-14b-480p",
            overwrite("image_encoder/model.safetensors", POINTER),
            ["image_encoder/model.safetensors", "a git-LFS pointer", "git lfs pull"],
        ),
        ("t2v-a14b", remove("transformer_2/" + DIT), ["transformer_2/*.safetensors is missing", AGAIN]),
        (
            "t2v-a14b",
            lambda folder: edit(folder / "model_index.json", boundary_ratio="high"),
            ["model_index.json has boundary_ratio 'high', not a number", AGAIN],
        ),
        (
            "t2v-1.3b",
            lambda folder: edit(folder / "scheduler/scheduler_config.json", flow_shift="x"),
            ["scheduler_config.json has flow_shift 'x', not a number", AGAIN],
        ),
    ],
)
def test_diffusers(tiny, tmp_path, name, damage, words):
    folder = shutil.copytree(tiny(name), tmp_path / "broken")
    damage(folder)
    assert_refused(folder, "model.path", *words)


def test_folders_that_are_no_checkpoint(tmp_path):
    assert_refused(tmp_path / "nowhere", "is no local folder", "in Diffusers layout or in the official one")
    assert_refused(tmp_path, "has no model_index.json and neither high_noise_model/ nor config.json")


def test_tensors_that_decide_the_model_are_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "t2v-1.3B/checkpoint", tmp_path / "broken")
    tensors = load_file(folder / DIT)
    save_file({name: tensor for name, tensor in tensors.items() if "ffn" not in name}, folder / DIT)
    assert_refused(folder, f"{DIT} has no tensor blocks.0.ffn.0.weight", AGAIN)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_transformer_that_torch_saved(tmp_path, legacy):
    folder = shutil.copytree(GOLDEN / "t2v-1.3B/checkpoint", tmp_path / "saved")
    tensors = {name: torch.nn.Parameter(tensor) for name, tensor in load_file(folder / DIT).items()}
    expected = open_checkpoint(str(folder)).dims
    (folder / DIT).unlink()
    file = folder / "diffusion_pytorch_model.pth"
    torch.save(tensors, file, _use_new_zipfile_serialization=not legacy)
    assert open_checkpoint(str(folder)).dims == expected
    os.truncate(file, 100)
    assert_refused(folder, file.name, AGAIN)


def test_listing_the_tensors_of_a_pickle_runs_nothing_that_it_names(tmp_path):
    folder = shutil.copytree(GOLDEN / "t2v-1.3B/checkpoint", tmp_path / "evil")
    (folder / DIT).unlink()
    witness = tmp_path / "witness"
    torch.save({"patch_embedding.weight": Evil(witness)}, folder / "diffusion_pytorch_model.pth")
    assert_refused(folder, "has no tensor patch_embedding.weight")
    assert not witness.exists()


class Evil:
    """Unpickled without care, it makes a file."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


def assert_refused(folder, *words):
    with pytest.raises(ConfigError) as error:
        open_checkpoint(str(folder))
    for word in words:
        assert re.search(re.escape(word), str(error.value)), f"{word!r} is not in {error.value}"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
