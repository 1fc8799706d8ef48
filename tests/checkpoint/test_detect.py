"""Which model a checkpoint is: both layouts, all models of the registry, and names that do not fit."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers import UniPCMultistepScheduler

from wanray.checkpoint import official, open_checkpoint
from wanray.checkpoint.identify import identify
from wanray.errors import ConfigError
from wanray.registry import MODELS, Dims

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {
    "t2v-1.3B": "t2v-1.3b",
    "i2v-14B": "i2v-14b-480p",
    "flf2v-14B": "flf2v-14b",
    "vace-1.3B": "vace-1.3b",
    "t2v-A14B": "t2v-a14b",
    "i2v-A14B": "i2v-a14b",
    "ti2v-5B": "ti2v-5b",
}
ALIKE = [
    {"t2v-1.3b", "t2v-14b", "t2i-14b"},
    {"i2v-14b-480p", "i2v-14b-720p"},
    {"vace-1.3b", "vace-14b"},
]
"""Models that differ in nothing but sizes, or not even there."""


def golden(case):
    return str(GOLDEN / case / "checkpoint")


def fits(name, other):
    return name == other or any({name, other} <= group for group in ALIKE)


@pytest.mark.parametrize(("case", "name"), CASES.items())
def test_official(case, name):
    checkpoint = open_checkpoint(golden(case))
    model = checkpoint.model
    assert (checkpoint.layout, model.name) == ("official", name)
    assert checkpoint.boundary == checkpoint.switch("official") == checkpoint.switch("diffusers")
    assert checkpoint.flow_shift == model.defaults.shift
    assert tuple(checkpoint.transformers) == model.experts
    assert (checkpoint.image_encoder is not None) == model.has_image_encoder
    assert Path(checkpoint.tokenizer, "spiece.model").is_file()
    assert checkpoint.dims.in_channels == model.dims.in_channels


@pytest.mark.parametrize("name", MODELS)
def test_diffusers(tiny, name):
    checkpoint = open_checkpoint(str(tiny(name)))
    assert checkpoint.layout == "diffusers"
    assert fits(checkpoint.model.name, name)
    assert open_checkpoint(str(tiny(name)), name).model.name == name
    assert tuple(checkpoint.transformers) == checkpoint.model.experts
    assert checkpoint.boundary == MODELS[name].boundary
    assert checkpoint.scheduler["flow_shift"] == checkpoint.flow_shift == MODELS[name].defaults.shift
    assert (checkpoint.image_processor is not None) == MODELS[name].has_image_encoder


def test_sizes_come_from_tensors_in_the_official_layout(tmp_path):
    folder = shutil.copytree(golden("vace-1.3B"), tmp_path / "vace")
    edit(folder / "config.json", dim=1, ffn_dim=1, num_layers=40, in_dim=1, vace_layers=None)
    sizes = Dims(dim=48, ffn_dim=80, num_heads=2, num_layers=4, in_channels=16, num_vace_blocks=2)
    assert open_checkpoint(str(folder)).dims == sizes


@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_the_name_of_the_folder_tells_480p_from_720p(tiny, tmp_path, layout):
    source = golden("i2v-14B") if layout == "official" else tiny("i2v-14b-480p")
    folder = shutil.copytree(source, tmp_path / "Wan2.1-I2V-14B-720P")
    assert open_checkpoint(str(folder)).model.name == "i2v-14b-720p"
    assert open_checkpoint(str(folder), "i2v-14b-480p").model.name == "i2v-14b-480p"


@pytest.mark.parametrize(("case", "detected"), CASES.items())
@pytest.mark.parametrize("name", MODELS)
def test_a_name_has_to_fit_the_structure(case, detected, name):
    if fits(name, detected):
        assert open_checkpoint(golden(case), name).model.name == name
    else:
        with pytest.raises(ConfigError, match=r"check model\.name") as error:
            open_checkpoint(golden(case), name)
        assert detected in str(error.value) or "no high_noise_model/" in str(error.value)
        assert f"does not fit model {name}" in str(error.value)


def test_real_sizes_are_of_one_model(tiny, tmp_path):
    folder = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "real")
    sizes = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40}
    edit(folder / "transformer/config.json", **sizes)
    assert open_checkpoint(str(folder)).model.name == "t2v-14b"
    assert open_checkpoint(str(folder), "t2i-14b").model.name == "t2i-14b"
    with pytest.raises(ConfigError, match=r"has the sizes of t2v-14b, not of model t2v-1\.3b"):
        open_checkpoint(str(folder), "t2v-1.3b")


@pytest.mark.parametrize("name", MODELS)
def test_official_headers_of_real_size(tmp_path, name):
    model, folder = MODELS[name], tmp_path / "name"
    folders = [folder / part for part in (["high_noise_model"] if model.boundary else [""])]
    tasks = {"ti2v-5b": "ti2v", "t2i-14b": "t2v"}
    for place in folders:
        place.mkdir(parents=True)
        kind = tasks.get(name, model.tasks[0])
        (place / "config.json").write_text(json.dumps({"model_type": kind, "_class_name": "WanModel"}))
        write_header(place / "diffusion_pytorch_model.safetensors", header_of(model))
    found = official.inspect(folder)
    assert found.dims == model.dims
    assert identify(folder, found, name) is model
    assert fits(identify(folder, found, None).name, name)
    assert identify(folder, found, None).dims == model.dims


def header_of(model):
    """Shapes of the tensors that tell a model, as in the released files."""
    sizes = model.dims
    shapes = {"patch_embedding.weight": [sizes.dim, sizes.in_channels, 1, 2, 2]}
    shapes |= {f"blocks.{n}.ffn.0.weight": [sizes.ffn_dim, sizes.dim] for n in range(sizes.num_layers)}
    shapes |= {f"vace_blocks.{n}.modulation": [1, 6, sizes.dim] for n in range(sizes.num_vace_blocks)}
    shapes |= {"img_emb.proj.0.weight": [1280]} if model.has_image_encoder else {}
    shapes |= {"img_emb.emb_pos": [1, 514, 1280]} if model.name == "flf2v-14b" else {}
    return {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}


def write_header(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_heads_have_to_divide_the_width(tmp_path):
    folder = shutil.copytree(golden("t2v-1.3B"), tmp_path / "broken")
    edit(folder / "config.json", num_heads=7)
    with pytest.raises(
        ConfigError, match=r"num_heads 7 in config\.json does not divide the width 80 of .*safet"
    ):
        open_checkpoint(str(folder))


def test_unknown_models_are_refused_by_name(tmp_path):
    folder = shutil.copytree(golden("t2v-1.3B"), tmp_path / "other")
    edit(folder / "config.json", _class_name="WanModel_S2V", model_type="s2v")
    with pytest.raises(
        ConfigError, match=r"WanModel_S2V of type s2v: this version renders t2v-1\.3b, .*ti2v"
    ):
        open_checkpoint(str(folder))
    edit(folder / "config.json", _class_name="WanAnimateModel", model_type=None)
    with pytest.raises(ConfigError, match="holds a WanAnimateModel: this version renders"):
        open_checkpoint(str(folder))


def test_other_pipelines_are_refused_by_name(tiny, tmp_path):
    folder = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "other")
    edit(folder / "model_index.json", _class_name="WanAnimatePipeline")
    with pytest.raises(ConfigError, match="holds a WanAnimatePipeline: this version renders"):
        open_checkpoint(str(folder))
    edit(folder / "model_index.json", _class_name="WanImageToVideoPipeline")
    with pytest.raises(ConfigError, match="holds a WanImageToVideoPipeline with 16 input channels: this"):
        open_checkpoint(str(folder))


def test_one_expert_is_no_model_of_its_own():
    folder = GOLDEN / "i2v-A14B/checkpoint/high_noise_model"
    with pytest.raises(ConfigError, match="WanModel of type i2v with 36 input channels: this version"):
        open_checkpoint(str(folder))


def test_the_scheduler_of_the_official_layout_is_what_diffusers_would_have():
    checkpoint = open_checkpoint(golden("t2v-A14B"))
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 12.0}
    ours = UniPCMultistepScheduler.from_config(checkpoint.scheduler)
    theirs = dict(UniPCMultistepScheduler(**settings).config)
    assert {name: ours.config[name] for name in theirs if name != "_use_default_values"} == {
        name: value for name, value in theirs.items() if name != "_use_default_values"
    }


def test_opening_needs_no_torch_and_the_result_travels(tmp_path):
    program = (
        "import sys, pickle; from wanray.checkpoint import open_checkpoint as o; "
        f"pickle.dump(o({golden('i2v-14B')!r}), open({str(tmp_path / 'pickle')!r}, 'wb')); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert pickle.loads((tmp_path / "pickle").read_bytes()) == open_checkpoint(golden("i2v-14B"))


def edit(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
