"""A converted checkpoint renders what its source renders; in bfloat16 it has half the weights' bytes."""

import json

import pytest
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


@pytest.mark.timeout(400)  # two renders of a full command each
@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.0), ("bfloat16", 0.02)])
def test_latents_are_equal_before_and_after(tmp_path, dtype, most):
    """Bit for bit in float32; in bfloat16 the islands lose what their file had beyond it."""
    source = GOLDEN / "t2v-A14B" / "checkpoint"
    convert(str(source), str(tmp_path / "converted"), dtype, None, 4.0)
    before = latents_of(source, tmp_path / "before", dtype)
    after = latents_of(tmp_path / "converted", tmp_path / "after", dtype)
    assert set(before) == set(after) == set(RUNS)
    for run in RUNS:
        assert (before[run] - after[run]).norm() / before[run].norm() <= most


def test_bfloat16_has_about_half_the_bytes(tmp_path):
    source = GOLDEN / "t2v-A14B" / "checkpoint"
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        convert(str(source), str(tmp_path / dtype), dtype, None, 4.0)
        files = (tmp_path / dtype).glob("transformer*/*.safetensors")
        sizes[dtype] = sum(path.stat().st_size for path in files)
    assert 0.5 < sizes["bfloat16"] / sizes["float32"] < 0.6
