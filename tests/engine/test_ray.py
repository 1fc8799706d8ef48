"""The Ray engine through the command line: equal pixels, gangs, dead drivers, dead ranks, small clusters."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import (
    SMALL,
    events,
    latents_of,
    metas,
    render,
    start,
    videos,
    wait_until,
    write_config,
    write_manifest,
)
from safetensors.torch import load_file, save_file

from wanray.storage import Store

# Every run starts four processes that import torch; on two busy cores that is half a minute and more.
pytestmark = pytest.mark.timeout(400)


def test_ray_equals_local_for_any_gang_size(tiny, tmp_path, cluster):
    manifest = write_manifest(tmp_path / "m.parquet", 2)
    runs = {
        "local": {"engine": "local"},
        "split": {"ray.address": cluster, "pools.denoise_high.gangs": 2},
        "swap": {"ray.address": cluster, "placement": "swap", "pools.denoise.topology.cfg": 2},
        "gang": {
            "ray.address": cluster,
            "placement": "split",
            "pools.denoise_high.topology.cfg": 2,
            "pools.denoise_low.topology.ulysses": 2,
            "pools.denoise_low.topology.fsdp": 2,
        },
    }
    for name, keys in runs.items():
        (tmp_path / name).mkdir()
        config = write_config(
            tmp_path / name, tiny("t2v-a14b"), manifest, **keys, **{"output.save_latents": True}
        )
        code, output = render(config)
        assert code == 0, output
    local, split, swap, gang = (latents_of(tmp_path / name / "out") for name in runs)
    assert len(local) == 2
    assert local.keys() == split.keys() == swap.keys() == gang.keys()
    assert all(torch.equal(local[key], split[key]) for key in local)
    assert all(torch.equal(local[key], swap[key]) for key in local)
    assert all(torch.equal(local[key], gang[key]) for key in local)
    topology = next(iter(metas(tmp_path / "gang/out").values()))["topology"]
    kernel = {"world_size": 2, "attention": "sdpa"}
    assert topology["denoise_high"] == {"cfg": 2, "ulysses": 1, "ring": 1, "fsdp": 1, **kernel}
    assert topology["denoise_low"] == {"cfg": 1, "ulysses": 2, "ring": 1, "fsdp": 2, **kernel}


def test_images_reach_both_experts_and_a_gang_of_two_as_they_do_locally(tiny, tmp_path, cluster):
    """Image to video and first-last-frame in one run; conditions travel from encode through both pools."""
    for name, colour in {"first": (200, 40, 40), "last": (40, 70, 190)}.items():
        Image.new("RGB", (80, 60), colour).save(tmp_path / f"{name}.png")
    image, last = str(tmp_path / "first.png"), str(tmp_path / "last.png")
    rows = [{"id": f"r{i}", "prompt": "a cat", "seed": i, **SMALL, "image": image} for i in range(2)]
    rows[1]["last_image"] = last
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    runs = {
        "local": {"engine": "local"},
        "split": {"ray.address": cluster, "pools.denoise_low.topology.ulysses": 2},
    }
    for name, keys in runs.items():
        (tmp_path / name).mkdir()
        keys |= {"output.save_latents": True}
        code, output = render(write_config(tmp_path / name, tiny("i2v-a14b"), tmp_path / "m.jsonl", **keys))
        assert code == 0, output
    local, split = (latents_of(tmp_path / name / "out") for name in runs)
    assert local.keys() == split.keys()
    assert len(local) == 2
    assert all(torch.equal(local[key], split[key]) for key in local)
    tasks = {meta["ids"][0]: meta["request"]["task"] for meta in metas(tmp_path / "split/out").values()}
    assert tasks == {"r0": "i2v", "r1": "flf2v"}


def test_a_row_that_fails_in_a_stage_becomes_a_failure_record_on_s3(tiny, tmp_path, s3_url):
    model = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    settings = model / "transformer" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"rope_max_seq_len": 4}))
    manifest = write_manifest(tmp_path / "m.parquet", 2)
    large = write_manifest(tmp_path / "large.parquet", 1, width=128, height=128, id="large")
    (tmp_path / "rows").mkdir()
    manifest.rename(tmp_path / "rows" / "0.parquet")
    large.rename(tmp_path / "rows" / "1.parquet")
    code, output = render(write_config(tmp_path, model, tmp_path / "rows", **{"output.url": s3_url}))
    assert code == 2, output
    assert "2 clips committed" in output
    store = Store.open(s3_url)
    (name,) = store.names("failures")
    failure = json.loads(store.read(f"failures/{name}"))
    assert (failure["stage"], failure["class"], failure["ids"]) == ("denoise", "model", ["large"])
    assert len([path for path in store.find("clips") if path.endswith("meta.json")]) == 2


def test_a_cluster_that_is_too_small_is_told_in_numbers(tiny, tmp_path, cluster):
    manifest = write_manifest(tmp_path / "m.parquet", 1)
    keys = {"ray.address": cluster, "pools.denoise.gangs": 3, "pools.denoise.resources.CPU": 3}
    code, output = render(write_config(tmp_path, tiny("t2v-1.3b"), manifest, **keys))
    assert code == 3, output
    assert "pool denoise needs 3 workers of 3 CPU, but only 2 fit" in output
    assert "Traceback" not in output


def test_the_demo_renders_eight_clips_and_then_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    arguments = ["configs/demo.yaml", f"output.url={tmp_path}/out"]
    code, output = render(arguments)
    assert code == 0, output
    assert_exactly_once(tmp_path / "out", 8)
    begin = time.monotonic()
    code, output = render(arguments)
    assert code == 0, output
    assert "0 clips committed, 8 were committed before" in output
    assert time.monotonic() - begin < 30
    assert len(events(tmp_path / "out", "dispatched")) == 4 * 8, "encode, high, low, decode"


def test_damaged_weights_are_wrong_use_on_ray_too(tiny, tmp_path, cluster):
    model = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    (weights,) = (model / "transformer").glob("*.safetensors")
    tensors = load_file(weights)
    lost = next(name for name in sorted(tensors) if name.endswith("weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, weights, {"format": "pt"})
    manifest = write_manifest(tmp_path / "m.parquet", 1)
    code, output = render(write_config(tmp_path, model, manifest, **{"ray.address": cluster}))
    assert code == 1, output
    assert lost in output


def assert_exactly_once(out, number):
    committed = metas(out)
    assert len(committed) == number
    found = videos(out)
    assert {key: [meta["video"]["path"].rpartition("/")[2]] for key, meta in committed.items()} == found


def test_a_killed_driver_is_resumed_by_the_same_command(tiny, tmp_path):
    manifest = write_manifest(tmp_path / "m.parquet", 8, steps=80)
    config = write_config(tmp_path, tiny("t2v-1.3b"), manifest)
    out = tmp_path / "out"
    process = start(config)
    wait_until(lambda: len(metas(out)) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)  # what was in flight in surviving workers has ended with the driver
    before = set(metas(out))
    assert 2 <= len(before) < 8
    killed_s = time.time()
    code, output = render(config)
    assert code == 0, output
    assert_exactly_once(out, 8)
    again = {event["key"] for event in events(out, "dispatched") if event["ts"] > killed_s}
    assert not again & before, "a committed clip was rendered again"


def idle_gangs(out):
    """What was told when gangs of the denoise pool came up: where they are."""
    told = events(out, "gang")
    return [event for event in told if (event["pool"], event["state"]) == ("denoise", "idle")]


def test_a_killed_rank_costs_no_clip(tiny, tmp_path, cluster):
    manifest = write_manifest(tmp_path / "m.parquet", 8, steps=150)
    config = write_config(
        tmp_path, tiny("t2v-1.3b"), manifest, **{"ray.address": cluster, "pools.denoise.gangs": 2}
    )
    out = tmp_path / "out"
    process = start(config)
    wait_until(lambda: len(metas(out)) >= 1, process)
    built = idle_gangs(out)
    busy = [event for event in events(out, "dispatched") if event["pool"] == "denoise"][-1]
    victim = next(event for event in built if event["worker"] == busy["worker"])
    os.kill(int(victim["detail"].rpartition(":")[2]), signal.SIGKILL)
    assert process.wait(timeout=240) == 0
    assert_exactly_once(out, 8)
    assert any(event["state"] == "rebuilding" for event in events(out, "gang"))
    assert {meta["attempts"] for meta in metas(out).values()} == {1, 2}


@pytest.mark.slow
def test_when_no_gang_can_be_rebuilt_the_run_ends(tiny, tmp_path, cluster):
    model = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    manifest = write_manifest(tmp_path / "m.parquet", 8, steps=150)
    keys = {"ray.address": cluster, "ray.start_timeout_s": 75}
    process = start(write_config(tmp_path, model, manifest, **keys), stderr=subprocess.PIPE)
    out = tmp_path / "out"
    wait_until(lambda: len(metas(out)) >= 1, process)
    shutil.rmtree(model / "transformer")
    (built,) = idle_gangs(out)
    os.kill(int(built["detail"].rpartition(":")[2]), signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 3, errors
    assert "all gangs of pool denoise are lost" in errors
    assert events(out, "gang")[-1]["state"] == "lost"
    summary = json.loads(next(out.glob("runs/*/summary.json")).read_text())
    assert (summary["exit_code"], summary["committed"]) == (3, len(metas(out)))
