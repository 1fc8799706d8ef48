"""The benchmark of GPUs, as far as CPUs can tell that it works: a small expert, all of its path."""

import math
from dataclasses import replace

import pytest

from benchmarks.expert_step import FIGURES, MODEL, in_process, run

SMALL = replace(MODEL.dims, dim=64, ffn_dim=128, num_heads=2, num_layers=2)


@pytest.mark.slow
def test_a_small_expert_is_measured():
    (row,) = in_process("sdpa", False, "cpu", SMALL, {"tiny": (64, 64, 9)})
    assert (row["attention"], row["mode"], row["size"]) == ("sdpa", "eager", "tiny")
    assert 0 < float(row["s/step"]) < 60
    assert float(row["TFLOP/s"]) > 0
    assert "torch" in str(row["on"])
    assert "xfuser" in str(row["on"])


@pytest.mark.slow
def test_a_kernel_that_is_not_there_says_so():
    (row,) = in_process("flash_3", False, "cpu", SMALL, {"tiny": (64, 64, 9)})
    assert row["size"] == "does not work here"
    assert all(math.isnan(float(row[name])) for name in FIGURES)


def test_without_a_gpu_it_ends_with_a_reason():
    with pytest.raises(SystemExit, match="measures a GPU, and torch finds none"):
        run()
