"""Alternatives in one table: what they would take, what is refused and why, which is best."""

import json
from functools import partial

import pytest
from works import LARGE, SMALL, make_config, make_work

from wanray.errors import ConfigError
from wanray.plan.compare import CHEAPEST, FASTEST, combinations, compare


@pytest.fixture
def compared(tmp_path):
    """compared(*options) -> alternatives for a hundred clips; the config may have overrides."""

    def run(*options, overrides=()):
        work = make_work({SMALL: 40, LARGE: 60})
        load = partial(make_config, tmp_path)
        return compare(work, combinations(options), lambda others: load(*overrides, *others))

    return run


def test_all_combinations_in_the_order_of_the_options():
    found = combinations(["placement=split,both", "pools.decode.resources={CPU: 1, memory: 2},{GPU: 1}"])
    assert [tuple(settings.values()) for settings in found] == [
        ("split", "{CPU: 1, memory: 2}"),
        ("split", "{GPU: 1}"),
        ("both", "{CPU: 1, memory: 2}"),
        ("both", "{GPU: 1}"),
    ]
    assert combinations([]) == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("placement", "must have the form KEY=V1,V2"),
        ("=a,b", "must have the form KEY=V1,V2"),
        ("placement=split,", "must have the form KEY=V1,V2"),
        ("defaults.steps=20,50", r"--compare defaults.steps is not possible: requests and measured times"),
        ("numerics.dtype=float32,bfloat16", "--compare numerics.dtype is not possible"),
        ("estimate.profile=a,b", "--compare estimate.profile is not possible"),
        ("pools.denoise.gangs=" + ",".join(map(str, range(1, 70))), "at most 64 combinations, got 69"),
    ],
)
def test_what_cannot_be_compared_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        combinations([option])


def test_more_gangs_are_faster_and_the_balanced_ones_cheapest(compared):
    found = compared("pools.denoise_high.gangs=1,2,4", overrides=["pools.denoise_low.gangs=2"])
    times = [item.estimate.whole_s for item in found]
    assert times == sorted(times, reverse=True)
    assert [item.estimate.num_gpus for item in found] == [4, 5, 7]
    fastest = next(item for item in found if FASTEST in item.best)
    cheapest = next(item for item in found if CHEAPEST in item.best)
    assert fastest.settings == {"pools.denoise_high.gangs": "4"}
    assert cheapest.estimate.gpu_hours == min(item.estimate.gpu_hours for item in found)


def test_what_is_refused_says_why_and_the_others_go_on(compared):
    split, other, both = compared("placement=split,mixed,both")
    assert other.refused == "placement must be one of auto, split, swap, both, got 'mixed'"
    assert (other.estimate, other.best) == (None, ())
    assert split.estimate.whole_s < both.estimate.whole_s
    two, three, seven = compared("topology.ulysses=2,5,7")
    assert two.estimate.num_gpus == 5, "of every denoise pool"
    assert three.refused == ""
    assert "must divide the model's 40 heads, got 7" in seven.refused


def test_settings_without_effect_are_named(compared):
    found = compared("placement=split,both", "pools.denoise.gangs=1,2")
    assert [bool(item.notes) for item in found] == [False, True, False, False]
    assert found[1].notes == ("pools.denoise has no effect: placement split uses denoise_high, denoise_low",)


@pytest.fixture
def planned(tiny, tmp_path, run_cli):
    """planned(*arguments) -> exit code, stdout, stderr of `wanray plan` for two requests."""
    rows = [{"prompt": "cat", "seed": seed, "width": 96, "height": 96} for seed in range(2)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"manifest: {tmp_path}/m.jsonl\noutput: {{url: {tmp_path}/out}}\n"
        f"model: {{path: {tiny('t2v-a14b')}}}\nestimate: {{price_per_gpu_hour: 2}}\n"
    )
    return partial(run_cli, "plan", config)


def test_the_table_stands_below_the_plan(planned):
    code, out, _ = planned("--compare", "placement=split,mixed", "topology.ulysses=1,2,3", "estimate.mfu=0.4")
    assert code == 0
    plan, _, table = out.partition("alternatives (6)")
    assert "790 TFLOP/s x 0.4" in plan, "one value is an override as ever"
    assert table.count("refused: placement must be one of") == 3
    assert table.count("must divide the model's 4 heads, got 3") == 1
    rows = [line for line in table.splitlines() if "<-" in line]
    assert [("fastest" in row, "fewest GPU hours" in row) for row in rows] == [(False, True), (True, False)]
    assert "USD" in table


def test_machines_get_the_alternatives_too(planned):
    code, out, _ = planned("--json", "--compare", "placement=split,mixed")
    split, mixed = json.loads(out)["alternatives"]
    assert code == 0
    assert split["settings"] == {"placement": "split"}
    assert split["estimate_s"] == split["estimate"]["whole_s"] > 0
    assert "got 'mixed'" in mixed["refused"]
    assert "alternatives" not in json.loads(planned("--json")[1])


def test_a_key_that_changes_requests_ends_the_command(planned):
    code, _, err = planned("--compare", "defaults.steps=2,3")
    assert code == 1
    assert "error: --compare defaults.steps is not possible" in err


def test_numbers_of_gpus_are_compared_by_their_best_layouts(compared):
    found = compared("denoise.gpus=4,8,16")
    times = [item.estimate.whole_s for item in found]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[2] > 3
    (refused, taken) = compared("denoise.gpus=4,8", overrides=["estimate.gpu=L4", "placement=split"])
    assert "no gang of up to 8 GPUs" in refused.refused
    assert taken.estimate is not None or "no gang" in taken.refused


def test_swapping_after_each_request_takes_longer_than_after_many(compared):
    one, many = compared("denoise.swap_after=1,16", overrides=["placement=swap", "estimate.host_gb_per_s=2"])
    assert one.estimate.whole_s > many.estimate.whole_s
