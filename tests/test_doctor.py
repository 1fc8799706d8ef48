"""`wanray doctor CHECKPOINT` names everything that is wrong, and nothing where nothing is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wanray.checkpoint.conversion import RECORD
from wanray.doctor import diagnose_checkpoint
from wanray.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
CASES = ["t2v-1.3B", "t2v-A14B", "i2v-14B", "ti2v-5B", "i2v-A14B", "flf2v-14B", "vace-1.3B"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def official(tmp_path):
    """A copy of the official folder of two experts in two shards each."""
    return shutil.copytree(GOLDEN / "t2v-A14B" / "checkpoint", tmp_path / "official")


@pytest.fixture
def folder(tiny, tmp_path):
    """A copy of a Diffusers folder with all kinds of parts but a second expert."""
    return shutil.copytree(tiny("i2v-14b-480p"), tmp_path / "folder")


def cut(file, num_bytes=100):
    file.write_bytes(file.read_bytes()[:-num_bytes])


def problems(path, *arguments, **options):
    return diagnose_checkpoint(str(path), *arguments, **options).all_problems


def assert_named(found, *words):
    """Each of `words` (or tuples of words) in a problem of its own, and no further problem."""
    left = list(found)
    for wanted in words:
        parts = (wanted,) if isinstance(wanted, str) else wanted
        fitting = [text for text in left if all(part in text for part in parts)]
        assert fitting, (wanted, left)
        left.remove(fitting[0])
    assert left == []


@pytest.mark.parametrize("case", CASES)
def test_golden_folders_are_healthy(case):
    found = diagnose_checkpoint(str(GOLDEN / case / "checkpoint"), with_loading=True)
    assert found.all_problems == []
    assert found.facts["layout"] == "official"
    networks = {part.name: part for part in found.parts if part.num_tensors}
    assert all(part.loaded_s is not None for part in networks.values())
    assert networks["text_encoder"].dtypes == {"bfloat16"}
    assert networks["vae"].dtypes == {"float32"}
    assert found.verdict.startswith("healthy: ")


@pytest.mark.parametrize("model", ["t2v-1.3b", "t2v-a14b", "i2v-14b-480p"])
def test_diffusers_folders_are_healthy(tiny, model):
    found = diagnose_checkpoint(str(tiny(model)), with_loading=True)
    assert found.all_problems == []
    assert found.facts == {"layout": "diffusers", "model": model}


def test_numbers_are_those_of_the_files(tiny):
    found = diagnose_checkpoint(str(tiny("t2v-1.3b")))
    vae = next(part for part in found.parts if part.name == "vae")
    assert vae.num_bytes == (tiny("t2v-1.3b") / "vae" / WEIGHTS).stat().st_size
    assert 4 * vae.num_parameters < vae.num_bytes
    assert vae.dtypes == {"float32"}


def test_all_damage_of_an_official_folder_is_named(official):
    cut(official / "high_noise_model" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    cut(official / "high_noise_model" / "diffusion_pytorch_model-00002-of-00002.safetensors")
    (official / "low_noise_model" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    (official / "Wan2.1_VAE.pth").unlink()
    cut(official / "models_t5_umt5-xxl-enc-bf16.pth")
    for name in ("tokenizer.json", "spiece.model"):
        (official / "google" / "umt5-xxl" / name).unlink()
    assert_named(
        problems(official),
        ("transformer (high)", "damaged", "high_noise_model/diffusion_pytorch_model-00001-of-00002"),
        ("transformer (high)", "damaged", "high_noise_model/diffusion_pytorch_model-00002-of-00002"),
        (
            "transformer (low)",
            "low_noise_model/diffusion_pytorch_model-00002-of-00002.safetensors is missing",
        ),
        ("vae", "Wan2.1_VAE.pth is missing"),
        ("text_encoder", "damaged", "models_t5_umt5-xxl-enc-bf16.pth"),
        ("tokenizer", "tokenizer.json is missing"),
    )


def test_all_damage_of_a_diffusers_folder_is_named(folder):
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "image_encoder")
    cut(folder / "transformer" / WEIGHTS)
    (folder / "text_encoder" / "config.json").write_text("{")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert_named(
        problems(folder),
        ("scheduler", "scheduler_config.json is missing"),
        ("text_encoder", "config.json is not JSON"),
        ("image_encoder", "config.json is missing"),
        ("image_encoder", "*.safetensors is missing"),
        ("transformer", "is no whole safetensors file"),
        ("vae", "config.json is missing"),
        ("vae", "*.safetensors is missing"),
    )


def test_missing_second_expert(tiny, tmp_path):
    folder = shutil.copytree(tiny("t2v-a14b"), tmp_path / "folder")
    shutil.rmtree(folder / "transformer_2")
    found = problems(folder)
    assert any("transformer_2" in text and "config.json is missing" in text for text in found)


def test_index_that_places_tensors_wrongly(official):
    index = official / "low_noise_model" / f"{WEIGHTS}.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["astray"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    assert_named(problems(official), ("transformer (low)", "places astray in", "which lacks it"))


def test_missing_index(official):
    (official / "low_noise_model" / f"{WEIGHTS}.index.json").unlink()
    assert_named(problems(official), ("transformer (low)", "the index of", "is missing"))


def test_pointer_instead_of_weights(folder):
    (folder / "vae" / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    assert_named(problems(folder), ("vae", "git-LFS pointer"))


def test_other_model_than_said(folder):
    assert_named(problems(folder, "t2v-14b"), ("does not fit model t2v-14b", "check model.name"))
    with pytest.raises(ConfigError, match="'nonsense' is unknown"):
        problems(folder, "nonsense")


def test_tensors_that_do_not_fit_are_found_by_loading(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "vae" / WEIGHTS)
    del tensors["decoder.conv_in.weight"]
    tensors["extra"] = tensors["decoder.conv_out.bias"].clone()
    save_file(tensors, folder / "vae" / WEIGHTS)
    assert problems(folder) == []
    assert_named(
        problems(folder, with_loading=True),
        ("vae", "lacks decoder.conv_in.weight"),
        ("vae", "has without a place in the network extra"),
    )


def test_tokenizer_that_knows_nothing(folder):
    content = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    content["model"]["vocab"] = [entry for entry in content["model"]["vocab"] if entry[0].startswith("<")]
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(content))
    assert_named(problems(folder), ("tokenizer", "knows no English", "'a cat walks in the rain' becomes"))


def test_tokenizer_that_does_not_load(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    assert_named(problems(folder), ("tokenizer", "does not load"))


def test_conversion_is_checked_by_its_digests(tmp_path):
    from wanray.models.convert import convert

    convert(str(GOLDEN / "t2v-1.3B" / "checkpoint"), str(tmp_path / "new"), "bfloat16", None, 4.0)
    assert "bfloat16" in diagnose_checkpoint(str(tmp_path / "new")).facts["converted"]
    file = tmp_path / "new" / "vae" / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    record = tmp_path / "new" / RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {"is_complete": False}))
    assert_named(
        problems(tmp_path / "new"),
        (str(file), "is not what `wanray convert` wrote"),
        (RECORD, "is not finished"),
    )
    record.write_text("{}")
    assert_named(problems(tmp_path / "new"), (RECORD, "is no record of a conversion"))


def test_no_checkpoint(tmp_path):
    assert_named(problems(tmp_path), (f"{tmp_path} has no model_index.json", "official"))


def test_command(run_cli, tiny, official):
    code, out, _ = run_cli("doctor", tiny("t2v-1.3b"))
    assert (code, out.splitlines()[-1]) == (0, f"healthy: {tiny('t2v-1.3b')}")
    (official / "Wan2.1_VAE.pth").unlink()
    code, out, _ = run_cli("doctor", official, "--name", "t2v-a14b")
    assert (code, out.splitlines()[-1]) == (1, f"not usable: {official} has 1 problem")
    assert f"problem    vae: incomplete: {official}/Wan2.1_VAE.pth is missing" in out
    code, _, err = run_cli("doctor", "./nowhere")
    assert (code, "model.path ./nowhere does not exist" in err) == (1, True)


def test_damage_is_told_without_torch(official):
    (official / "Wan2.1_VAE.pth").unlink()
    code = (
        "import sys; from wanray.doctor import diagnose_checkpoint as look;"
        f"look({str(official)!r}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "transformers"} & set(done.stdout.split())
