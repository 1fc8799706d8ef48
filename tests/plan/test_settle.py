"""What `denoise.gpus` decides: words, pools of the engine, and settings that it would overrule."""

import re

import pytest
from pyarrow.parquet import write_table
from works import make_config, make_work

from wanray.config import load_config
from wanray.engine.prepare import prepare
from wanray.errors import ConfigError
from wanray.manifest.arrays import table_of
from wanray.plan.estimate import make_estimate
from wanray.plan.settle import check_choice_is_free, settle

SHAPES = {(832, 480, 81): 300, (1280, 720, 81): 100}


def test_without_a_number_of_gpus_all_stays_as_configured(tmp_path):
    config = make_config(tmp_path, "pools.denoise_high.gangs=3")
    settled = settle(config, make_work(SHAPES))
    assert settled == (config, "split", "two experts, a pool each, since engine is ray")


def test_the_reason_names_numbers_and_what_the_others_would_take(tmp_path):
    config = make_config(tmp_path, "denoise.gpus=7", "placement=split", "estimate.gpu_gib=100")
    settled = settle(config, make_work(SHAPES))
    high, low = (settled.config.pools.denoise_high, settled.config.pools.denoise_low)
    numbers = f"{high.gangs} x {high.topology.world_size} : {low.gangs} x {low.topology.world_size}"
    assert settled.reason.startswith(f"{numbers} GPUs high : low, the fastest of ")
    assert settled.reason.endswith(" on 7 (denoise.gpus)")
    free = settle(make_config(tmp_path, "denoise.gpus=7", "estimate.gpu_gib=100"), make_work(SHAPES))
    for placement in {"split", "both", "swap"} - {free.placement}:
        assert re.search(rf"{placement} takes \d\.\d\d x as long", free.reason)
    small = settle(make_config(tmp_path, "denoise.gpus=1", "estimate.gpu_gib=70"), make_work(SHAPES))
    assert small.placement == "swap"
    assert "split does not fit; both does not fit" in small.reason


def test_the_choice_is_no_slower_than_what_a_user_would_try(tmp_path):
    work = make_work(SHAPES)
    chosen = settle(make_config(tmp_path, "denoise.gpus=8"), work)
    best = make_estimate(chosen.config, work, chosen.placement).estimate
    for high in range(1, 8):
        usual = make_config(
            tmp_path, f"pools.denoise_high.gangs={high}", f"pools.denoise_low.gangs={8 - high}"
        )
        assert best.whole_s <= 1.01 * make_estimate(usual, work, "split").estimate.whole_s


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine=local"], "denoise.gpus 4 needs engine ray"),
        (
            ["pools.denoise_low.gangs=2"],
            r"chooses pools.denoise_low.gangs itself: leave one of them out, got 2",
        ),
        (["pools.denoise.topology.ulysses=2"], r"chooses pools.denoise.topology itself"),
    ],
)
def test_settings_that_it_would_overrule_are_refused(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_choice_is_free(make_config(tmp_path, "denoise.gpus=4", *overrides))


@pytest.fixture
def planned(tiny, tmp_path):
    """planned(*overrides) -> the job of a tiny two-expert model, planned but not begun."""
    rows = [
        {"prompt": f"p {seed}", "seed": seed, "width": 64, "height": 64, "num_frames": 9, "steps": 4}
        for seed in range(20)
    ]
    model = tiny("t2v-a14b")
    (tmp_path / "c.yaml").write_text(
        f"manifest: {tmp_path}/m.parquet\noutput: {{url: {tmp_path}/out}}\nmodel: {{path: {model}}}\n"
    )
    write_table(table_of(rows), tmp_path / "m.parquet")
    return lambda *overrides: prepare(load_config(tmp_path / "c.yaml", list(overrides)), write=True)


def test_the_engine_gets_the_gangs_that_the_plan_shows(planned, tmp_path):
    job = planned("denoise.gpus=6", "placement=split", "run=r")
    shown = {pool.name: (pool.num_workers, pool.world_size) for pool in job.plan.pools if pool.experts}
    asked = {pool.name: (pool.num_workers, pool.world_size) for pool in job.pools if pool.name in shown}
    assert shown == asked
    assert sum(number * size for number, size in shown.values()) == 6
    assert "the fastest of" in job.plan.placement_reason
    stored = load_config(tmp_path / "out/runs/r/config.yaml", [])
    assert stored.denoise.gpus == 6
    assert stored.pools.denoise_high.gangs == 1, (
        "the settings of a run are the user's, so that they load again"
    )


def test_a_swap_that_is_asked_for_makes_gangs_that_are_visited_twice(planned):
    job = planned("denoise.gpus=2", "placement=swap", "denoise.swap_after=5")
    (pool,) = [pool for pool in job.pools if pool.name == "denoise"]
    assert (pool.visits, pool.in_a_row) == (2, 5)
    assert pool.num_workers * pool.world_size == 2
    (stage,) = pool.stages
    assert stage.config.swaps
    assert list(stage.config.transformers) == ["high", "low"]
