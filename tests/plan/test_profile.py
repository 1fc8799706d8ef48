"""Profiles: what is recorded, where they are found, and what a run leaves for the next plan."""

import json
from dataclasses import replace

import pytest
from works import LARGE, SMALL, make_config, make_profile, make_work, measured

from wanray.config import load_config
from wanray.engine.prepare import prepare
from wanray.errors import ConfigError
from wanray.plan import Counts, Plan, make_estimate
from wanray.plan.profile import Profile, find_profile, fits
from wanray.plan.recorder import SAMPLE_SIZE, Recorder
from wanray.records import RESUMED, FailedTry, Record, Request
from wanray.registry import Guidance
from wanray.storage import Store

STAGES = {
    "encode": ["admit", "encode"],
    "denoise_high": ["denoise_high"],
    "denoise_low": ["denoise_low"],
    "decode": ["decode"],
}


@pytest.fixture
def recorder(tmp_path):
    """Of a run of ten large requests."""
    found = make_estimate(make_config(tmp_path), make_work({LARGE: 10}), "split")
    plan = Plan(
        run="r1",
        model={"name": "t2v-a14b", "digest": "d"},
        numerics={"dtype": "bfloat16"},
        placement="split",
        counts=Counts(),
        groups=found.groups,
        pools=found.pools,
        parts=(),
        problems=(),
        num_problems=0,
        notes=(),
        assumptions={},
    )
    return Recorder(plan, STAGES, 1.0)


def record(number=0, **timings_s):
    width, height, num_frames = LARGE
    request = Request(
        task="t2v", prompt="p", negative_prompt="", width=width, height=height, num_frames=num_frames,
        fps=16.0, seed=number, steps=40, shift=12.0, guidance=Guidance(high=4.0, low=3.0), solver="unipc",
    )  # fmt: skip
    return Record(key=f"{number:064x}", ids=("a",), request=request, timings_s=timings_s)


def test_times_are_kept_by_stage_with_what_they_cost(recorder):
    recorder.add(record(0, encode=1.0, denoise_high=26.0, denoise_low=14.0, decode=2.0))
    recorder.add(record(1, encode=0.0, denoise_high=30.0, denoise_low=14.0, decode=2.0))
    profile = recorder.profile({"encode": 0.4, "denoise_high": 28.0})
    times = {entry.stage: entry for entry in profile.measured}
    high = times["denoise_high"]
    assert (high.count, high.mean_s, high.median_s, high.num_steps) == (2, 28.0, 28.0, 26)
    assert (high.guided, high.world_size, times["denoise_low"].num_steps) == (True, 1, 14)
    assert high.tflop / times["denoise_low"].tflop == pytest.approx(26 / 14)
    assert (times["encode"].mean_s, times["encode"].num_steps, times["decode"].mean_s) == (0.5, 0, 2.0)
    assert profile.worker_share == {"encode": 0.8, "denoise_high": 1.0}


def test_clips_that_did_not_pay_for_all_steps_are_left_out(recorder):
    tried = FailedTry(stage="denoise_high", failure_class="infrastructure", message="died")
    recorder.add(record(0, denoise_high=5.0).tried(tried))
    recorder.add(replace(record(1, denoise_high=5.0), notes=(f"{RESUMED} 20, which ...",)))
    assert recorder.profile({}) is None


def test_memory_does_not_grow_with_clips_and_the_median_stays_fair(recorder):
    for number in range(20_000):
        recorder.add(record(number, decode=float(number % 1000)))
    (entry,) = recorder.profile({}).measured
    assert (entry.count, entry.mean_s) == (20_000, 499.5)
    assert 350 < entry.median_s < 650, f"of a sample of {SAMPLE_SIZE}"


def test_the_start_ends_when_every_pool_has_a_worker(recorder):
    began_s = recorder._started_s
    recorder.began(began_s + 5)
    recorder.add(record(decode=1.0))
    assert recorder.profile({}).start_s == pytest.approx(5, abs=0.1), "an engine that tells of no gangs"
    recorder.ready("encode", began_s + 4)
    recorder.ready("denoise_high", began_s + 30)
    recorder.ready("denoise_high", began_s + 90)
    assert recorder.profile({}).start_s == pytest.approx(30, abs=0.1)


def test_a_profile_is_itself_again_after_a_file():
    profile = make_profile(measured("decode", SMALL, 3.0), worker_share={"encode": 0.5})
    assert Profile.from_json(profile.to_json()) == profile


def stored(folder, run, **values):
    profile = make_profile(measured("decode", SMALL, 3.0), run=run, **values)
    Store.open(str(folder)).write(f"runs/{run}/profile.json", profile.to_json().encode())
    return profile


def test_the_newest_run_with_a_profile_is_found(tmp_path):
    assert find_profile(None, Store.open(str(tmp_path))) is None
    stored(tmp_path, "20260101-000000-aa")
    newest = stored(tmp_path, "20260301-000000-aa")
    Store.open(str(tmp_path)).write("runs/20260401-000000-aa/config.yaml", b"{}")
    assert find_profile(None, Store.open(str(tmp_path))) == newest
    assert find_profile("none", Store.open(str(tmp_path))) is None


@pytest.mark.parametrize("where", ["{}", "{}/", "{}/runs/b", "{}/runs/b/profile.json"])
def test_a_profile_may_come_from_elsewhere(tmp_path, where):
    stored(tmp_path / "other", "a")
    theirs = stored(tmp_path / "other", "b")
    assert find_profile(where.format(tmp_path / "other"), Store.open(str(tmp_path))) == theirs


def test_a_bucket_holds_profiles_too(s3_url):
    Store.open(s3_url).write("runs/a/profile.json", make_profile(run="a").to_json().encode())
    assert find_profile(s3_url, Store.open(s3_url)).run == "a"
    assert find_profile(f"{s3_url}/runs/a/profile.json", Store.open(s3_url)).run == "a"


@pytest.mark.parametrize("content", ["{}", "[1]", "nothing", '{"format": 1, "measured": [], "surprise": 1}'])
def test_what_is_no_profile_is_named(tmp_path, content):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ConfigError, match=r"estimate.profile .*p.json cannot be read"):
        find_profile(str(tmp_path / "p.json"), Store.open(str(tmp_path)))
    with pytest.raises(ConfigError, match=r"estimate.profile .*nowhere has no profile: name a profile.json"):
        find_profile(str(tmp_path / "nowhere"), Store.open(str(tmp_path)))


def test_a_damaged_profile_of_this_output_says_how_to_go_on(tmp_path):
    Store.open(str(tmp_path)).write("runs/a/profile.json", b"half of i")
    with pytest.raises(ConfigError, match=r"runs/a/profile.json cannot be read .*estimate.profile=none"):
        find_profile(None, Store.open(str(tmp_path)))


def test_times_of_other_models_and_dtypes_say_nothing():
    profile = make_profile()
    assert fits(profile, "t2v-a14b", "bfloat16") == ""
    assert fits(profile, "t2v-1.3b", "float32") == (
        "its model is t2v-a14b, not t2v-1.3b, its dtype is bfloat16, not float32"
    )


def test_a_run_measures_what_the_next_plan_says(tiny, tmp_path, run_cli):
    """A real run, without Ray: plan and profile lie beside its config, and the next plan rests on them."""
    shape = {"width": 64, "height": 48, "num_frames": 5, "steps": 2}
    rows = [json.dumps({"id": f"r{row}", "prompt": f"cat {row}", "seed": row, **shape}) for row in range(4)]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"manifest: {tmp_path}/m.jsonl\noutput: {{url: {tmp_path}/out}}\n"
        f"model: {{path: {tiny('t2v-1.3b')}}}\nengine: local\n"
    )
    arguments = ["render", config, "run=first", "--only", "r0", "--only", "r1"]
    assert run_cli(*arguments)[0] == 0
    planned = json.loads((tmp_path / "out/runs/first/plan.json").read_text())
    assert [pool["name"] for pool in planned["pools"]] == ["encode", "denoise", "decode"]
    assert {"estimate_s", "start_s", "gpu_hours", "cost", "currency", "storage_bytes"} <= planned.keys()
    profile = Profile.from_json((tmp_path / "out/runs/first/profile.json").read_text())
    assert (profile.run, profile.num_clips) == ("first", 2)
    assert {entry.stage for entry in profile.measured} == {"admit", "encode", "denoise", "decode"}
    plan = prepare(load_config(config, []), write=False).plan
    denoise = next(pool for pool in plan.pools if pool.name == "denoise")
    entry = next(entry for entry in profile.measured if entry.stage == "denoise")
    assert denoise.mean_s == pytest.approx(entry.mean_s * profile.worker_share["denoise"])
    assert denoise.basis == "measured in run first, 2 clips"
    assert plan.estimate.start_s == profile.start_s > 0
    assert "the mean of 2 clips of this output" in plan.estimate.storage_basis
    other = prepare(load_config(config, ["numerics.dtype=float32"]), write=False).plan
    assert "the times of run first are not used: its dtype is bfloat16, not float32" in other.notes
