"""FLOPs against published arithmetic, step counts per expert, placement and pools."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from wanray.config import load_config
from wanray.engine.prepare import prepare
from wanray.errors import ConfigError
from wanray.plan import plan_json
from wanray.plan.flops import forward_tflop, num_tokens
from wanray.plan.page import plan_page
from wanray.registry import MODELS
from wanray.schedule import make_schedule

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.mark.parametrize(
    ("model", "size", "frames", "tokens", "tflop"),
    [
        ("t2v-a14b", (1280, 720), 81, 75_600, 6523),
        ("t2v-a14b", (832, 480), 81, 32_760, 1678),
        ("t2v-1.3b", (832, 480), 81, 32_760, 283),
        ("t2v-1.3b", (1280, 720), 81, 75_600, 1250),
    ],
)
def test_flop_model_gives_the_published_arithmetic(model, size, frames, tokens, tflop):
    assert num_tokens(*size, frames, MODELS[model]) == tokens
    assert forward_tflop(tokens, MODELS[model].dims) == pytest.approx(tflop, rel=0.01)


@pytest.mark.parametrize(
    ("steps", "shift", "boundary", "high"), [(40, 12.0, 0.875, 26), (40, 5.0, 0.9, 15), (40, 3.0, 0.875, 12)]
)
def test_steps_per_expert_follow_the_sigmas(steps, shift, boundary, high):
    assert make_schedule(steps, shift, "unipc", "official").steps_high(boundary) == high


def plan_of(tiny, tmp_path, model, *overrides):
    config = tmp_path / "c.yaml"
    config.write_text(f"manifest: {MANIFESTS}/demo.parquet\noutput: {{url: {tmp_path}/out}}\n")
    return prepare(load_config(config, [f"model.path={tiny(model)}", *overrides]), write=False).plan


def test_auto_placement_follows_the_engine(tiny, tmp_path):
    assert plan_of(tiny, tmp_path, "t2v-a14b").placement == "split"
    assert plan_of(tiny, tmp_path, "t2v-a14b", "engine=local").placement == "both"
    assert plan_of(tiny, tmp_path, "t2v-1.3b").placement == "single"


def test_a_plan_writes_nothing(tiny, tmp_path):
    plan_of(tiny, tmp_path, "t2v-1.3b")
    assert not (tmp_path / "out").exists()


def test_more_gangs_of_the_busier_expert_shorten_the_estimate(tiny, tmp_path):
    free = ["estimate.encode_s=0", "pools.decode.workers=9", "estimate.peak_tflops=0.0001"]
    one = plan_of(tiny, tmp_path, "t2v-a14b", *free)
    two = plan_of(tiny, tmp_path, "t2v-a14b", *free, "pools.denoise_high.gangs=2")
    busy = {pool.name: pool.busy_s for pool in one.pools}
    assert busy["denoise_high"] > busy["denoise_low"] > 0
    assert busy["denoise_high"] / 2 == next(pool.busy_s for pool in two.pools if pool.name == "denoise_high")
    assert busy["denoise_high"] / 2 < two.estimate_s < one.estimate_s
    assert plan_json(one)["estimate_s"] == one.estimate_s


def test_pools_without_effect_are_named(tiny, tmp_path):
    plan = plan_of(tiny, tmp_path, "t2v-a14b", "pools.denoise.gangs=3")
    assert plan.notes == ("pools.denoise has no effect: placement split uses denoise_high, denoise_low",)
    with pytest.raises(
        ConfigError, match=r"pools.denoise_low.topology.ulysses must divide the model's 4 heads, got 3"
    ):
        plan_of(tiny, tmp_path, "t2v-a14b", "pools.denoise_low.topology.ulysses=3")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["placement=swap"], "denoise.offload sequential excludes placement swap: .* use placement=both"),
        (
            ["pools.denoise_low.topology.ulysses=2", "pools.denoise_low.topology.fsdp=2"],
            "pools.denoise_low.topology.fsdp must be 1 with denoise.offload=sequential, got 2",
        ),
    ],
)
def test_weights_on_the_host_are_neither_swapped_nor_divided(tiny, tmp_path, keys, words):
    with pytest.raises(ConfigError, match=words):
        plan_of(tiny, tmp_path, "t2v-a14b", "denoise.offload=sequential", *keys)


def test_the_page_says_what_matters(tiny, tmp_path):
    console = Console(width=110, record=True, file=StringIO())
    console.print(plan_page(plan_of(tiny, tmp_path, "t2v-a14b", f"manifest={MANIFESTS}/with-errors.parquet")))
    page = console.export_text()
    for text in (
        "placement  split",
        "2 to render of 2",
        "8 of 10 rows invalid",
        "denoise_high",
        "96x96",
        "GPU hours",
        "since engine is ray",
        "FLOP model: 790 TFLOP/s x 0.5",
    ):
        assert text in page


def test_gangs_of_several_ranks_say_how_they_are_arranged(tiny, tmp_path):
    plan = plan_of(tiny, tmp_path, "t2v-a14b", "pools.denoise_high.topology={cfg: 2, ulysses: 2}")
    console = Console(width=150, record=True, file=StringIO())
    console.print(plan_page(plan))
    assert "1 gang of 4 ranks (cfg 2 x ulysses 2, as configured)" in console.export_text()
