"""A run as a value: what it works out, and that it survives being stored."""

import json

import pytest

from wanray.live import GangView, PoolView, Snapshot

GANGS = (
    GangView(worker=0, state="busy", key="ab" * 32, step=3, num_steps=8, step_s=2.0),
    GangView(worker=1, state="rebuilding"),
)
DENOISE = PoolView(
    name="denoise", done=4, active=1, queued=5, rebuilds=1, busy_s=30.0, up_s=40.0, gangs=GANGS
)
SNAPSHOT = Snapshot(
    run="night",
    model="t2v-1.3b",
    ts=1000.0,
    state="rendering",
    total=10,
    committed=4,
    failed=1,
    invalid=2,
    failed_by_class={"input": 2, "model": 1},
    skipped={"committed": 1},
    elapsed_s=3600.0,
    estimate_s=7200.0,
    num_bytes=4000,
    stage_s={"denoise": 12.5},
    recent_clips=2,
    recent_bytes=2000,
    recent_s=600.0,
    pools=(PoolView(name="encode"), DENOISE),
)


def test_it_comes_back_from_json() -> None:
    assert Snapshot.from_json(json.dumps(SNAPSHOT.to_json())) == SNAPSHOT


def test_what_a_newer_version_added_is_passed_over() -> None:
    values = SNAPSHOT.to_json() | {"mood": "good"}
    values["pools"][1]["mood"] = values["pools"][1]["gangs"][0]["mood"] = "good"
    assert Snapshot.from_json(json.dumps(values)) == SNAPSHOT


def test_rates_and_time_left() -> None:
    assert SNAPSHOT.left == 4
    assert SNAPSHOT.clips_per_hour == pytest.approx(4.0)
    assert SNAPSHOT.recent_clips_per_hour == pytest.approx(12.0)
    assert SNAPSHOT.bytes_per_s == pytest.approx(2000 / 600)
    assert SNAPSHOT.eta_s == pytest.approx(4 * 300)


def test_before_the_first_clip_the_plan_says_how_long_it_takes() -> None:
    begun = Snapshot(run="night", total=10, elapsed_s=200.0, estimate_s=7200.0)
    assert (begun.eta_s, begun.clips_per_hour, begun.recent_clips_per_hour) == (7000.0, None, None)
    assert Snapshot(run="night", total=10, elapsed_s=200.0).eta_s is None


def test_a_pool_says_how_busy_it_is() -> None:
    assert DENOISE.busy_share == pytest.approx(0.75)
    assert DENOISE.step_s == 2.0
    assert (PoolView(name="encode").busy_share, PoolView(name="encode").step_s) == (None, None)
