"""What a pool is told, counted: busy time, steps, rebuilds; sums over clips."""

from dataclasses import replace

import pytest

from wanray.engine.tally import ClipTotals, PoolTally
from wanray.records import Clip, Record, Request
from wanray.registry import Guidance

REQUEST = Request(
    task="t2v", prompt="p", negative_prompt="", width=64, height=64, num_frames=5, fps=16.0, seed=1, steps=2,
    shift=5.0, guidance=Guidance(high=1.0, low=1.0), solver="unipc",
)  # fmt: skip
CLIP = Clip(path="p", sha256="s", bytes=100, codec="h264", width=64, height=64, num_frames=5, fps=16.0)
RECORD = Record(key="ab" * 32, ids=("a",), request=REQUEST, clip=CLIP, timings_s={"denoise": 1.5})


@pytest.fixture
def pool():
    return PoolTally("denoise")


def test_busy_time_is_summed_over_gangs(pool):
    pool.change(0, "idle", 0.0)
    pool.change(1, "idle", 0.0)
    pool.take("a", 0, 10.0)
    pool.leave("a", 0, "done", 40.0)
    view = pool.view(0, 50.0)
    assert (view.busy_s, view.up_s, view.busy_share) == (30.0, 100.0, 0.3)


def test_time_in_which_a_gang_is_rebuilt_is_no_time_that_it_could_work(pool):
    pool.change(0, "idle", 0.0)
    pool.take("a", 0, 0.0)
    pool.leave("a", 0, "lost", 10.0)
    pool.change(0, "rebuilding", 10.0)
    pool.change(0, "rebuilding", 20.0)
    pool.change(0, "idle", 60.0)
    view = pool.view(0, 70.0)
    assert (view.busy_s, view.up_s, view.rebuilds, view.done) == (10.0, 20.0, 1, 0)


def test_a_gang_that_is_built_the_first_time_is_not_rebuilt(pool):
    pool.change(0, "idle", 5.0)
    assert pool.view(0, 5.0).rebuilds == 0


def test_steps_are_timed_over_what_was_not_reported(pool):
    pool.take("a", 0, 0.0)
    pool.step("a", 0, 1, 8, 5.0)
    assert pool.view(0, 5.0).gangs[0].step_s is None, "the first may have loaded something"
    pool.step("a", 0, 4, 8, 11.0)
    gang = pool.view(0, 11.0).gangs[0]
    assert (gang.key, gang.step, gang.num_steps, gang.step_s) == ("a", 4, 8, 2.0)
    pool.leave("a", 0, "done", 20.0)
    pool.take("b", 0, 20.0)
    gang = pool.view(0, 20.0).gangs[0]
    assert (gang.state, gang.key, gang.step, gang.step_s) == ("busy", "b", 0, None)


def test_a_worker_of_several_seats_is_busy_until_the_last_leaves(pool):
    pool.take("a", 0, 0.0)
    pool.take("b", 0, 5.0)
    pool.leave("b", 0, "done", 10.0)
    view = pool.view(2, 10.0)
    assert (view.active, view.done, view.queued, view.gangs[0].state, view.gangs[0].key) == (
        1,
        1,
        2,
        "busy",
        "a",
    )
    pool.leave("a", 0, "failed", 20.0)
    view = pool.view(2, 30.0)
    assert (view.busy_s, view.up_s, view.gangs[0].state) == (20.0, 30.0, "idle")


def test_news_that_comes_late_takes_no_time_back(pool):
    pool.take("a", 0, 10.0)
    pool.leave("a", 0, "done", 9.0)
    view = pool.view(0, 8.0)
    assert (view.busy_s, view.up_s) == (0.0, 0.0)


def test_sums_over_clips_and_the_rate_of_the_last_minutes():
    totals = ClipTotals()
    totals.add(RECORD, 10, 0.0)
    for moment_s in (1000.0, 1100.0, 1200.0):
        totals.add(replace(RECORD, timings_s={"denoise": 0.5, "decode": 1.0}), 10, moment_s)
    fields = totals.fields(1300.0)
    assert (fields["num_bytes"], fields["steps"], fields["tokens"]) == (400, 8, 80)
    assert fields["stage_s"] == {"denoise": 3.0, "decode": 3.0}
    assert (fields["recent_clips"], fields["recent_bytes"], fields["recent_s"]) == (2, 200, 300.0)
    assert totals.fields(5000.0)["recent_clips"] == 0
