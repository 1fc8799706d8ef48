"""A converted checkpoint renders what its source renders; in bfloat16 it has half the weights' bytes."""

import json

import pytest
import torch
from golden_cases import GOLDEN, render_rows, row_of
from safetensors.torch import load_file

from wanray.models.convert import convert

RUNS = ("unipc", "dpmpp")


def latents_of(checkpoint, folder, dtype):
    """id -> final latents of the golden runs of t2v-A14B, rendered with any checkpoint of it."""
    rows = [row_of("t2v-A14B", run) for run in RUNS]
    code, output = render_rows(rows, checkpoint, folder, dtype)
    assert code == 0, output
    return {
        json.loads(path.read_text())["ids"][0]: load_file(path.parent / "latents.safetensors")["latents"]
        for path in (folder / "out").glob("clips/*/*/meta.json")
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_latents_are_equal_before_and_after(tmp_path, dtype):
    source = GOLDEN / "t2v-A14B" / "checkpoint"
    convert(str(source), str(tmp_path / "converted"), dtype, None, 4.0)
    before = latents_of(source, tmp_path / "before", dtype)
    after = latents_of(tmp_path / "converted", tmp_path / "after", dtype)
    assert set(before) == set(after) == set(RUNS)
    for run in RUNS:
        assert torch.equal(before[run], after[run])
