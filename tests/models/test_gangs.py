"""Gangs against one process: the same latents for every topology, with and without pads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gangs import Work, denoised, encoded, forward_twice, in_gang, stop
from model_runs import denoised_alone
from PIL import Image

from wanray.config import TopologyConfig

GOLDEN = Path(__file__).parents[1] / "golden"

pytestmark = pytest.mark.timeout(300)

ROW = {"prompt": "a red circle moving right", "num_frames": 9, "seed": 7, "steps": 3, "shift": 5.0}
EVEN, ODD = {"width": 64, "height": 64}, {"width": 80, "height": 48}
"""48 and 45 tokens; of VACE, with two frames more, 80 and 75."""
EVEN_5B, ODD_5B = {"width": 128, "height": 128}, {"width": 160, "height": 96}
"""The same of a 5B, whose tokens are twice as wide and high."""
TOPOLOGIES = {
    "ulysses 2": {"ulysses": 2},
    "ulysses 4": {"ulysses": 4},
    "ring 2": {"ring": 2},
    "ulysses 2 x ring 2": {"ulysses": 2, "ring": 2},
    "cfg 2": {"cfg": 2},
    "cfg 2 x ulysses 2": {"cfg": 2, "ulysses": 2},
    "fsdp 2": {"ulysses": 2, "fsdp": 2},
    "cfg 2 x fsdp 2": {"cfg": 2, "fsdp": 2},
}
RING_ERROR = 1e-6
"""Of the largest latent: a ring merges partial sums in another order, and guidance multiplies the error."""


def rows_of(name, media):
    """Two requests, of an even and of an odd number of tokens, with all that the model takes."""
    shapes = (EVEN, ODD) if name != "ti2v-5b" else (EVEN_5B, ODD_5B)
    guidance = {"high": 4.0, "low": 3.0} if name == "t2v-a14b" else 4.0
    rows = [ROW | shape | {"guidance": guidance} for shape in shapes]
    if name == "vace-1.3b":
        references = [str(media / "reference.png"), str(media / "first.png")]
        return [row | {"reference_images": references, "context_scale": 0.7} for row in rows]
    return rows if name.startswith("t2v") else [with_image(row, media) for row in rows]


def with_image(row, media):
    """An image of just the size that is wanted, since videos take their aspect from it."""
    width, height = row.pop("width"), row.pop("height")
    path = media / f"{width}x{height}.png"
    Image.open(media / "first.png").resize((width, height)).save(path)
    return row | {"image": str(path), "max_area": width * height}


@pytest.fixture(scope="module", params=["t2v-1.3b", "i2v-14b-480p", "ti2v-5b", "vace-1.3b", "t2v-a14b"])
def rendered(request, tiny, media):
    """Work for one gang, and what one process makes of it."""
    path = tiny(request.param)
    experts = ("high", "low") if request.param == "t2v-a14b" else ("single",)
    records = encoded(path, rows_of(request.param, media))
    expected = [denoised_alone(path, record, experts) for record in records]
    return Work(path=path, records=records, experts=experts), expected


def gang_of(work, topology, **changes):
    """The same work for a gang."""
    return denoised(replace(work, topology=TopologyConfig(**topology), **changes))


def error_of(found, expected):
    """The largest difference, relative to the largest latent."""
    return np.abs(found - expected.numpy()).max() / np.abs(found).max()


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_a_gang_renders_what_one_process_renders(rendered, topology):
    work, expected = rendered
    for found, latents in zip(gang_of(work, topology), expected, strict=True):
        if "ring" in topology:
            assert error_of(found, latents) <= RING_ERROR
        else:
            assert np.array_equal(found, latents.numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("topology", ["ulysses 2", "cfg 2", "fsdp 2", "cfg 2 x fsdp 2"])
def test_a_gang_that_swaps_experts_renders_the_same(tiny, topology, dtype):
    """Each half of two requests, the first high, then low; with FSDP a rank reads its part of each expert."""
    path, experts = tiny("t2v-a14b"), ("high", "low")
    records = encoded(path, rows_of("t2v-a14b", None), dtype)
    expected = [denoised_alone(path, record, experts, dtype=dtype) for record in records]
    work = Work(path=path, records=records, experts=experts, dtype=dtype)
    for found, latents in zip(gang_of(work, TOPOLOGIES[topology], swaps=True), expected, strict=True):
        assert np.array_equal(found, latents.numpy())


@pytest.mark.parametrize("topology", ["ulysses 2", "cfg 2"])
def test_a_gang_whose_blocks_stay_on_the_host_renders_the_same(rendered, topology):
    work, expected = rendered
    for found, latents in zip(gang_of(work, TOPOLOGIES[topology], offloads=True), expected, strict=True):
        assert np.array_equal(found, latents.numpy())


@pytest.mark.parametrize("topology", ["ulysses 2", "ring 2", "ulysses 2 x ring 2"])
def test_xdit_alone_attends_to_pads(rendered, topology):
    """What keeps the odd request right is ours: without it, its latents differ a hundredfold more."""
    work, (_, odd) = rendered
    _, wrong = gang_of(work, TOPOLOGIES[topology], attends_to_pads=True)
    assert error_of(wrong, odd) > 100 * RING_ERROR


LOW_PRECISION = {"ulysses 2": {"ulysses": 2}, "cfg 2": {"cfg": 2}, "fsdp 2": {"ulysses": 2, "fsdp": 2}}


@pytest.mark.parametrize("mode", ["official", "diffusers"])
@pytest.mark.parametrize("topology", LOW_PRECISION.values(), ids=LOW_PRECISION)
def test_a_gang_keeps_bfloat16_with_its_float32_islands(tiny, topology, mode):
    path, row = tiny("t2v-1.3b"), ROW | ODD | {"guidance": 4.0}
    records = encoded(path, [row], "bfloat16", mode)
    work = Work(path=path, records=records, dtype="bfloat16", mode=mode)
    expected = denoised_alone(path, records[0], ("single",), mode=mode, dtype="bfloat16")
    (found,) = gang_of(work, topology)
    assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("topology", LOW_PRECISION.values(), ids=LOW_PRECISION)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gang_reads_official_folders(topology, dtype):
    path, experts = GOLDEN / "t2v-A14B/checkpoint", ("high", "low")
    records = encoded(path, [ROW | ODD | {"guidance": {"high": 4.0, "low": 3.0}}], dtype)
    expected = denoised_alone(path, records[0], experts, dtype=dtype)
    (found,) = gang_of(Work(path=path, records=records, experts=experts, dtype=dtype), topology)
    assert np.array_equal(found, expected.numpy())


def test_the_context_parallelism_of_diffusers_computes_the_same(tiny):
    """An independent oracle: other code that divides heads and tokens, on the same two ranks."""
    generator = torch.Generator().manual_seed(3)
    inputs = {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, generator=generator),
        "timestep": torch.tensor([700]),
        "encoder_hidden_states": torch.randn(1, 512, 32, generator=generator),
    }
    work = Work(path=tiny("t2v-1.3b"), records=[], topology=TopologyConfig(ulysses=2))
    ours, theirs = in_gang(2, forward_twice, work, inputs)
    assert np.abs(ours).max() > 0.1
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("topology", [{"ulysses": 2}, {"cfg": 2}], ids=["ulysses", "cfg"])
def test_ranks_stop_together_and_render_again(tiny, topology):
    path = tiny("t2v-a14b")
    records = encoded(path, [ROW | EVEN | {"steps": 5, "guidance": {"high": 4.0, "low": 3.0}}])
    work = Work(path=path, records=records, experts=("high", "low"), topology=TopologyConfig(**topology))
    stopped, latents = in_gang(2, stop, work, 2)
    assert "was stopped after step 2" in stopped
    assert np.array_equal(latents, denoised_alone(path, records[0], work.experts).numpy())
