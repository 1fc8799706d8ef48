"""What a request takes in a pool: measured before scaled, scaled before the FLOP model."""

import pytest
from works import LARGE, SMALL, gang_of, make_config, make_profile, make_work, measured

from wanray.plan import make_estimate
from wanray.plan.flops import forward_tflop


def pools_of(config, work, placement="split"):
    found = make_estimate(config, work, placement)
    return {pool.name: pool for pool in found.pools}, found


def test_without_a_profile_flops_decide(tmp_path):
    work = make_work({LARGE: 10})
    pools, found = pools_of(make_config(tmp_path, "estimate.mfu=0.4"), work)
    step_s = 2 * forward_tflop(32_760, work.dims) / (790 * 0.4)
    assert found.groups[0].gang_s == pytest.approx(40 * step_s)
    assert pools["denoise_high"].mean_s == pytest.approx(26 * step_s)
    assert pools["denoise_high"].basis == "FLOP model: 790 TFLOP/s x 0.4"
    assert found.groups[0].basis == "FLOP model"
    assert pools["encode"].basis == "FLOP model: 0.05 TFLOP/s x 1 core"


def test_weights_that_stay_on_the_host_travel_in_each_forward(tmp_path):
    """26 guided steps of the high-noise expert: 52 forwards, or 26 where two halves of a gang share them."""
    work = make_work({LARGE: 10})
    for topology, num_forwards in ((), 52), (("pools.denoise_high.topology.cfg=2",), 26):
        keys = ("estimate.host_gb_per_s=14", *topology)
        plain, _ = pools_of(make_config(tmp_path, *keys), work)
        slow, _ = pools_of(make_config(tmp_path, *keys, "denoise.offload=sequential"), work)
        more_s = slow["denoise_high"].mean_s - plain["denoise_high"].mean_s
        assert more_s == pytest.approx(num_forwards * 28 / 14)


def test_pools_without_gpus_compute_on_their_cores(tmp_path):
    """272 TFLOP of the VAE are five seconds of a GPU, and a quarter of an hour of eight cores."""
    work = make_work({LARGE: 1})
    on_gpu, _ = pools_of(make_config(tmp_path), work)
    on_cpu, _ = pools_of(make_config(tmp_path, "pools.decode.resources={CPU: 8}"), work)
    assert on_gpu["decode"].mean_s == pytest.approx(1.4, rel=0.05)
    assert on_cpu["decode"].mean_s == pytest.approx(277 / 0.05 / 8, rel=0.05)
    assert (on_gpu["decode"].num_gpus, on_cpu["decode"].num_gpus) == (1, 0)


def test_what_was_measured_counts_by_step(tmp_path):
    work = make_work({LARGE: 10})
    high = gang_of(work, 0, "high") | {"num_steps": 13}
    work = make_work({LARGE: 10}, profile=make_profile(measured("denoise_high", LARGE, 130.0, **high)))
    pools, found = pools_of(make_config(tmp_path), work)
    assert pools["denoise_high"].mean_s == pytest.approx(260), "26 steps, of which 13 took 130 s"
    assert pools["denoise_high"].basis == "measured in run r1, 10 clips"
    assert found.groups[0].clip_s == pytest.approx(130 + 70 / 2 + pools["encode"].mean_s + 1.4, abs=0.2), (
        "who waits for a clip waits medians, and the other expert's steps take as long"
    )


def test_other_shapes_experts_and_gangs_are_scaled_by_flops(tmp_path):
    work = make_work({SMALL: 1, LARGE: 3})
    entry = measured("denoise_high", SMALL, 50.0, **gang_of(work, 0, "high"))
    work = make_work({SMALL: 1, LARGE: 3}, profile=make_profile(entry))
    pools, found = pools_of(make_config(tmp_path), work)
    small, large = work.groups
    ratio = large.tflop_per_clip / small.tflop_per_clip
    assert ratio > 2
    assert pools["denoise_high"].busy_s == pytest.approx(50 * (1 + 3 * ratio))
    assert pools["denoise_high"].basis == "scaled from run r1, 10 clips"
    assert pools["denoise_low"].busy_s == pytest.approx(50 * 14 / 26 * (1 + 3 * ratio))
    assert [group.basis for group in found.groups] == ["scaled", "scaled"]
    two = make_config(tmp_path, "pools.denoise_high.topology.ulysses=2")
    assert pools_of(two, work)[0]["denoise_high"].basis == "scaled from run r1, 10 clips"


def test_the_nearest_shape_is_scaled(tmp_path):
    middle = (832, 480, 77)
    work = make_work({middle: 1, SMALL: 1, LARGE: 1})
    small = measured("denoise_high", SMALL, 1.0, **gang_of(work, 1, "high"))
    large = measured("denoise_high", LARGE, 300.0, **gang_of(work, 2, "high"))
    work = make_work({middle: 1}, profile=make_profile(small, large))
    ratio = work.groups[0].tflop_of(("high",)) / large.tflop
    assert pools_of(make_config(tmp_path), work)[0]["denoise_high"].mean_s == pytest.approx(300 * ratio)


def test_texts_cost_what_those_cost_that_share_them(tmp_path):
    """In the run each prompt had two seeds, so a record's mean is half of a text's."""
    profile = make_profile(measured("encode", SMALL, 3.0), requests_per_text=2.0)
    pools, _ = pools_of(make_config(tmp_path), make_work({LARGE: 8}, profile=profile))
    assert pools["encode"].busy_s == pytest.approx(8 * 6.0)
    pools, _ = pools_of(make_config(tmp_path), make_work({LARGE: 8}, num_texts=2, profile=profile))
    assert pools["encode"].busy_s == pytest.approx(2 * 6.0)


def test_a_worker_with_several_in_work_is_not_paid_several_times(tmp_path):
    profile = make_profile(measured("encode", LARGE, 3.0), worker_share={"encode": 0.5})
    pools, _ = pools_of(make_config(tmp_path), make_work({LARGE: 8}, profile=profile))
    assert pools["encode"].mean_s == pytest.approx(1.5)


def test_what_the_user_says_of_encoding_counts(tmp_path):
    work = make_work({LARGE: 8}, profile=make_profile(measured("encode", LARGE, 3.0)))
    pools, _ = pools_of(make_config(tmp_path, "estimate.encode_s=7"), work)
    assert (pools["encode"].mean_s, pools["encode"].basis) == (7, "estimate.encode_s")


def test_decoding_scales_with_pixels(tmp_path):
    profile = make_profile(measured("decode", SMALL, 4.9))
    pools, _ = pools_of(make_config(tmp_path), make_work({LARGE: 1}, profile=profile))
    assert pools["decode"].mean_s == pytest.approx(8.1)
    assert pools["decode"].basis == "scaled from run r1, 10 clips"


def test_an_extension_that_was_never_measured_is_not_estimated(tmp_path):
    config = make_config(tmp_path, "extension.method=chat", "extension.language=en")
    pools, _ = pools_of(config, make_work({LARGE: 1}))
    assert pools["extend"].basis == "not estimated"
    assert pools["extend"].needed is None
    profile = make_profile(measured("extend", LARGE, 2.0))
    pools, _ = pools_of(config, make_work({LARGE: 4}, profile=profile))
    assert (pools["extend"].busy_s, pools["extend"].basis) == (8.0, "measured in run r1, 10 clips")


def test_gpu_hours_cost_and_storage(tmp_path):
    config = make_config(
        tmp_path,
        "pools.denoise_high.gangs=4",
        "pools.denoise_low.gangs=2",
        "pools.denoise_low.topology.ulysses=2",
        "estimate.price_per_gpu_hour=2.5",
        "estimate.start_s=360",
        "output.save_latents=true",
        "output.video.bitrate_kbps=8000",
        "denoise.checkpoint_every_steps=10",
    )
    estimate = pools_of(config, make_work({LARGE: 10}))[1].estimate
    assert estimate.num_gpus == 4 + 2 * 2 + 1, "decoding takes one too"
    assert estimate.gpu_hours == pytest.approx(9 * (360 + estimate.whole_s) / 3600)
    assert estimate.cost == pytest.approx(2.5 * estimate.gpu_hours)
    latents = 4 * 16 * 21 * 60 * 104
    assert estimate.storage_bytes == pytest.approx(10 * (latents + 8e6 / 8 * 81 / 16), rel=1e-6)
    assert estimate.work_bytes == 6 * 4 * latents, "a state of 34 MB in each of six gangs"


def test_the_local_engine_has_one_worker_of_each_kind_on_one_gpu(tmp_path):
    config = make_config(tmp_path, "engine=local", "pools.denoise.gangs=4", "pools.decode.workers=3")
    pools, found = pools_of(config, make_work({LARGE: 4}), "both")
    assert {pool.num_workers for pool in pools.values()} == {1}
    assert found.estimate.num_gpus == 1


def test_nothing_to_do_takes_no_time(tmp_path):
    estimate = pools_of(make_config(tmp_path), make_work({}))[1].estimate
    assert (estimate.whole_s, estimate.gpu_hours, estimate.storage_bytes) == (0, 0, 0)
