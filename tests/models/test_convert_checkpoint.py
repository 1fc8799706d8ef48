"""`wanray convert`: golden official folders become what diffusers' own pipelines load, tensor for tensor."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import diffusers
import pytest
import torch
from accelerate import init_empty_weights
from safetensors import safe_open

from wanray import cli
from wanray.checkpoint import open_checkpoint
from wanray.checkpoint.conversion import RECORD
from wanray.errors import ConfigError, StorageError
from wanray.models import convert as convert_module
from wanray.models.convert import convert
from wanray.models.diffusers_folder import dtype_of
from wanray.models.load import iter_tensors

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {
    "t2v-1.3B": diffusers.WanPipeline,
    "t2v-A14B": diffusers.WanPipeline,
    "ti2v-5B": diffusers.WanPipeline,
    "i2v-14B": diffusers.WanImageToVideoPipeline,
    "flf2v-14B": diffusers.WanImageToVideoPipeline,
    "i2v-A14B": diffusers.WanImageToVideoPipeline,
    "vace-1.3B": diffusers.WanVACEPipeline,
}
MANY_FILES_GIB = 5e-5
"""About fifty kilobytes for each file."""


def golden(case):
    return str(GOLDEN / case / "checkpoint")


def run(source, folder, dtype="float32", name=None, max_shard_gib=4.0):
    return convert(str(source), str(folder), dtype, name, max_shard_gib)


def content(folder):
    """Path -> bytes of all files."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def networks(folder, name=None):
    """Part of the pipeline -> its tensors by name."""
    checkpoint = open_checkpoint(str(folder), name)
    parts = {"text_encoder": checkpoint.text_encoder, "vae": checkpoint.vae}
    names = {"single": "transformer", "high": "transformer", "low": "transformer_2"}
    parts |= {names[expert]: part for expert, part in checkpoint.transformers.items()}
    if checkpoint.image_encoder:
        parts["image_encoder"] = checkpoint.image_encoder
    return {part: dict(iter_tensors(component)) for part, component in parts.items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@pytest.fixture(scope="module")
def tiny_i2v(tiny):
    return tiny("i2v-14b-480p")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("case", "pipeline"), CASES.items())
def test_golden_in_float32_is_the_same_in_diffusers(tmp_path, case, pipeline):
    done = run(golden(case), tmp_path / "new")
    source, converted = networks(golden(case)), networks(tmp_path / "new")
    assert source.keys() == converted.keys()
    for part, tensors in source.items():
        assert_equal(converted[part], tensors)
        assert {name: t.dtype for name, t in converted[part].items()} == {
            n: t.dtype for n, t in tensors.items()
        }
    assert done.num_tensors == sum(map(len, source.values()))

    before, after = open_checkpoint(golden(case)), open_checkpoint(str(tmp_path / "new"))
    assert (after.layout, after.model, after.dims) == ("diffusers", before.model, before.dims)
    assert (after.boundary, after.flow_shift) == (before.boundary, before.flow_shift)

    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "new")
    assert type(loaded) is pipeline
    for part, tensors in source.items():
        state = getattr(loaded, part).state_dict()
        assert [name for name in tensors if not torch.equal(state[name].float(), tensors[name].float())] == []
        assert state.keys() - tensors.keys() <= {"encoder.embed_tokens.weight"}
    assert loaded.config.get("boundary_ratio") == before.model.boundary
    assert bool(loaded.config.get("expand_timesteps")) == before.model.has_token_timesteps
    assert loaded.tokenizer("a cat").input_ids[-1] == 1
    if before.image_encoder:
        assert loaded.image_processor.size["shortest_edge"] == 224
        assert loaded.image_processor.crop_size["height"] == 224


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_keeps_float32_where_it_matters(tmp_path, case):
    run(golden(case), tmp_path / "new", "bfloat16")
    source, converted = networks(golden(case)), networks(tmp_path / "new")
    for part, tensors in converted.items():
        for name, tensor in tensors.items():
            kept = part in ("vae", "image_encoder") or (part.startswith("transformer") and is_float32(name))
            assert tensor.dtype == (torch.float32 if kept else torch.bfloat16), (part, name)
            assert torch.equal(tensor, source[part][name].to(tensor.dtype)), (part, name)


def is_float32(name):
    kept = set(diffusers.WanTransformer3DModel._keep_in_fp32_modules or ())
    return bool(kept & set(name.split(".")))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_bfloat16_loads_in_diffusers(tmp_path):
    run(golden("t2v-A14B"), tmp_path / "new", "bfloat16")
    loaded = diffusers.WanPipeline.from_pretrained(tmp_path / "new", torch_dtype=torch.bfloat16)
    kept = {"scale_shift_table", "condition_embedder.time_embedder.linear_1.weight"}
    dtypes = {name: parameter.dtype for name, parameter in loaded.transformer_2.named_parameters()}
    assert {dtypes[name] for name in kept} == {torch.float32}
    assert dtypes["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert loaded.text_encoder.config.dtype == torch.bfloat16


def test_bfloat16_is_half_at_real_sizes():
    """Narrow networks shrink less, because what stays float32 counts there."""
    component = open_checkpoint(golden("t2v-1.3B")).transformers["single"]
    with init_empty_weights():
        parameters = dict(
            diffusers.WanTransformer3DModel(num_attention_heads=12, num_layers=30).named_parameters()
        )
    before = sum(4 * parameter.numel() for parameter in parameters.values())
    after = sum(
        parameter.numel() * dtype_of(component, name, torch.float32, torch.bfloat16).itemsize
        for name, parameter in parameters.items()
    )
    assert 0.5 < after / before < 0.51


def test_diffusers_folder_as_source(tmp_path, tiny_i2v):
    run(tiny_i2v, tmp_path / "new")
    source, converted = networks(tiny_i2v), networks(tmp_path / "new")
    for part, tensors in source.items():
        assert_equal(converted[part], tensors)
    for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
        assert (tmp_path / "new" / name).read_bytes() == (tiny_i2v / name).read_bytes()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_shards_and_index(tmp_path):
    run(golden("t2v-A14B"), tmp_path / "new", max_shard_gib=1e-4)
    for part in ("transformer", "transformer_2"):
        index = json.loads(
            (tmp_path / "new" / part / "diffusion_pytorch_model.safetensors.index.json").read_text()
        )
        files = sorted((tmp_path / "new" / part).glob("*.safetensors"))
        assert len(files) > 2
        assert set(index["weight_map"].values()) == {file.name for file in files}
        assert all(file.stat().st_size < 1e-4 * 2**30 + 20_000 for file in files)
    for part, tensors in networks(golden("t2v-A14B")).items():
        assert_equal(networks(tmp_path / "new")[part], tensors)
    loaded = diffusers.WanPipeline.from_pretrained(tmp_path / "new")
    tensors = networks(golden("t2v-A14B"))["transformer_2"]
    assert torch.equal(loaded.transformer_2.proj_out.weight, tensors["proj_out.weight"])


def start(source, folder):
    command = [str(Path(sys.executable).with_name("wanray")), "convert", source, str(folder)]
    command += ["--max-shard-gib", str(MANY_FILES_GIB)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_in_the_middle_goes_on(tmp_path):
    options = {"dtype": "bfloat16", "max_shard_gib": MANY_FILES_GIB}
    whole = run(golden("vace-1.3B"), tmp_path / "whole", **options)
    process = start(golden("vace-1.3B"), tmp_path / "new")
    wait_for(lambda: len(list((tmp_path / "new").rglob("*.safetensors"))) > 6)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ConfigError, match="is being written by another"):
        run(golden("vace-1.3B"), tmp_path / "new", **options)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    finished = json.loads((tmp_path / "new" / RECORD).read_text())
    assert 0 < len(finished["files"]) < whole.num_files
    assert not finished["is_complete"]
    (tmp_path / "new" / "vae" / "cut.safetensors.partial").write_text("what a kill leaves")

    done = run(golden("vace-1.3B"), tmp_path / "new", **options)
    assert done.num_kept == len(finished["files"])
    assert content(tmp_path / "new") == content(tmp_path / "whole")
    again = run(golden("vace-1.3B"), tmp_path / "new", **options)
    assert again.num_kept == again.num_files


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_damaged_finished_file_is_written_again(tmp_path, caplog):
    run(golden("t2v-1.3B"), tmp_path / "new")
    before = content(tmp_path / "new")
    file = tmp_path / "new" / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (tmp_path / "new" / "model_index.json").unlink()
    with caplog.at_level(logging.WARNING):
        done = run(golden("t2v-1.3B"), tmp_path / "new")
    assert done.num_kept == done.num_files - 2
    assert f"{file} is not what was written there" in caplog.text
    assert content(tmp_path / "new") == before


def test_disk_that_loses_bytes(tmp_path, monkeypatch):
    write = convert_module._Hashed.write

    def lose(self, data):
        write(self, data)
        self.sha256.update(b"and more")

    monkeypatch.setattr(convert_module._Hashed, "write", lose)
    with pytest.raises(StorageError, match="does not read back as it was written: check the disk"):
        run(golden("t2v-1.3B"), tmp_path / "new")
    monkeypatch.undo()
    assert run(golden("t2v-1.3B"), tmp_path / "new").num_kept == 0


def test_another_source_or_option_is_refused(tmp_path, tiny_i2v):
    run(golden("t2v-1.3B"), tmp_path / "new")
    before = content(tmp_path / "new")
    with pytest.raises(
        ConfigError, match=r"holds the finished conversion of .* with dtype float32 instead of"
    ):
        run(golden("t2v-1.3B"), tmp_path / "new", "bfloat16")
    with pytest.raises(
        ConfigError, match=r"with digest .*, model t2v-1.3b instead of i2v-14b-480p: name another"
    ):
        run(tiny_i2v, tmp_path / "new")
    assert content(tmp_path / "new") == before


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no conversion"):
        run(golden("t2v-1.3B"), tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        run(golden("t2v-1.3B"), tmp_path / "notes")
    assert content(tmp_path) == {"notes": b"mine"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float16"}, "--dtype must be one of bfloat16, float32"),
        ({"max_shard_gib": 0}, "more than 0"),
    ],
)
def test_wrong_options(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        run(golden("t2v-1.3B"), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_incomplete_source_is_refused_before_anything_is_written(tmp_path, tiny_i2v):
    from safetensors.torch import load_file, save_file

    for name, data in content(tiny_i2v).items():
        (tmp_path / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "old" / name).write_bytes(data)
    file = tmp_path / "old" / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["proj_out.weight"], tensors["proj_out.bias"]
    save_file(tensors | {"extra": torch.ones(1)}, file)
    with pytest.raises(ConfigError, match=r"lacks proj_out.bias and 1 more; has without a place .* extra"):
        run(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_files_can_be_mapped(tmp_path):
    """Each tensor begins at a multiple of its item size, float32 among bfloat16 too."""
    run(golden("t2v-1.3B"), tmp_path / "new", "bfloat16")
    with safe_open(tmp_path / "new" / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as tensors:
        mapped = [tensors.get_tensor(name) for name in tensors.keys()]  # noqa: SIM118
        assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in mapped)


def test_command(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["wanray", "convert", golden("t2v-1.3B"), str(tmp_path / "new")])
    monkeypatch.setattr(logging.root, "handlers", [])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert ended.value.code == 0
    assert "holds t2v-1.3b in Diffusers layout: 12 files (0 were there), 285 tensors" in out
    assert "file=vae/diffusion_pytorch_model.safetensors" in err
