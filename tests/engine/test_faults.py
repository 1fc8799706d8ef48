"""Workers that die or hang, runs that are told to stop: what is lost, and what is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import children_of, kill_one
from runs import (
    ENVIRONMENT,
    events,
    latents_of,
    metas,
    render,
    start,
    wait_until,
    write_config,
    write_manifest,
)

from wanray.sinks.ledger import Ledger
from wanray.storage import Store

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory, cluster):
    """The output of a run of `trouble.py`: eight rows, three of which kill whoever takes them."""
    folder = tmp_path_factory.mktemp("troubled")
    script = Path(__file__).with_name("trouble.py")
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(script.parent)}
    done = subprocess.run(
        [sys.executable, str(script), cluster, str(folder)],
        capture_output=True, text=True, timeout=380, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def failed(out, seed):
    (event,) = [event for event in events(out, "failed") if event["key"] == f"{seed:064x}"]
    return event


def test_all_that_can_be_rendered_is(troubled):
    keys = {event["key"] for event in events(troubled, "committed")}
    assert keys == {f"{seed:064x}" for seed in (0, 5, 6, 7)}


def tries_of(event, pool):
    """Those in the pool itself: in the one before, it may have sat beside what killed its worker."""
    return [item for item in event["tries"] if item["stage"] == pool]


@pytest.mark.parametrize(("seed", "pool"), [(1, "encode"), (2, "denoise"), (3, "decode")])
def test_a_request_that_kills_every_worker_fails_alone(troubled, seed, pool):
    event = failed(troubled, seed)
    assert (event["stage"], event["failure_class"], event["cause"]) == (pool, "infrastructure", "worker_died")
    assert [item["cause"] for item in tries_of(event, pool)] == ["worker_died"] * 3
    lost = [item for item in events(troubled, "released") if item["outcome"] == "lost"]
    assert len([item for item in lost if (item["key"], item["pool"]) == (event["key"], pool)]) == 3
    failure = Ledger(Store.open(str(troubled))).read_failure(event["key"])
    assert failure is not None
    assert len(failure["causes"]) == event["attempts"] == len(event["tries"])
    assert {item["cause"] for item in failure["causes"]} == {"worker_died"}


def test_no_gang_is_rebuilt_more_often_than_it_must(troubled):
    """Three times per request that kills, once for the one that hangs, once for fresh memory."""
    rebuilt = [item["pool"] for item in events(troubled, "gang") if item["state"] == "rebuilding"]
    assert {pool: rebuilt.count(pool) for pool in set(rebuilt)} == {"encode": 3, "denoise": 4, "decode": 5}


def test_a_worker_that_hangs_is_killed_and_its_request_moves_on(troubled):
    lost = [item for item in events(troubled, "released") if item["outcome"] == "lost"]
    of_it = [item["pool"] for item in lost if item["key"] == f"{5:064x}"]
    assert of_it.count("denoise") == 1
    assert any("hangs" in item["detail"] for item in events(troubled, "gang"))


def test_memory_that_runs_out_gets_a_fresh_process_once(troubled):
    event = failed(troubled, 4)
    assert (event["cause"], event["failure_class"]) == ("out_of_memory", "model")
    assert len(tries_of(event, "decode")) == 2
    assert "numerics.vae_tiling" in event["message"]
    assert "out of memory: what it holds is given back" in [
        item["detail"] for item in events(troubled, "gang")
    ]


def test_a_pool_actor_that_dies_comes_back(tmp_path, cluster, tiny):
    manifest = write_manifest(tmp_path / "m.parquet", 6, steps=60)
    process = start(write_config(tmp_path, tiny("t2v-1.3b"), manifest))
    out = tmp_path / "out"
    wait_until(lambda: len(metas(out)) >= 1, process)
    assert kill_one(children_of(process.pid), "GangPool")
    assert process.wait(timeout=240) == 0
    assert len(metas(out)) == 6


def test_a_stopped_local_run_goes_on_from_the_very_step(tmp_path, tiny):
    """SIGTERM in the midst of a clip; latents equal those of a run that nobody disturbed."""
    manifest = write_manifest(tmp_path / "m.parquet", 2, steps=200)
    keys = {"engine": "local", "output.save_latents": True}
    for name in ("calm", "disturbed"):
        (tmp_path / name).mkdir()
    calm = write_config(tmp_path / "calm", tiny("t2v-a14b"), manifest, **keys)
    disturbed = write_config(tmp_path / "disturbed", tiny("t2v-a14b"), manifest, **keys)
    assert render(calm)[0] == 0
    out = tmp_path / "disturbed/out"
    process = start(disturbed, stderr=subprocess.PIPE)
    wait_until(lambda: len(events(out, "dispatched")) >= 3, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "stopped by SIGTERM" in errors
    (state,) = out.glob("work/*/state-*.safetensors")
    step = int(state.name.split("-")[1])
    code, output = render(disturbed)
    assert code == 0, output
    meta = metas(out)[state.parent.name]
    assert any(f"went on from step {step}," in note for note in meta["notes"])
    assert not list(out.glob("work/*/*"))
    expected, found = latents_of(tmp_path / "calm/out"), latents_of(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_stopped_run_on_ray_commits_what_is_denoised_and_goes_on(tmp_path, cluster, tiny):
    manifest = write_manifest(tmp_path / "m.parquet", 12, steps=150)
    keys = {"ray.address": cluster, "output.save_latents": True, "denoise.checkpoint_every_steps": 10}
    config = write_config(tmp_path, tiny("t2v-a14b"), manifest, **keys)
    out = tmp_path / "out"
    process = start(config, stderr=subprocess.PIPE)
    wait_until(lambda: len(metas(out)) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    ended_s = time.time()
    assert process.returncode == 3, errors
    assert "stopped by SIGTERM" in errors
    denoised = {event["key"] for event in events(out, "released")
                if (event["pool"], event["outcome"]) == ("denoise_low", "done")}  # fmt: skip
    before = set(metas(out))
    assert denoised == before
    stored = {path.parent.name for path in out.glob("work/*/state-*")}
    assert stored
    code, output = render(config)
    assert code == 0, output
    committed = metas(out)
    assert len(committed) == 12
    assert all(any("went on from step" in note for note in committed[key]["notes"]) for key in stored)
    again = {event["key"] for event in events(out, "dispatched") if event["ts"] > ended_s}
    assert not again & before
    assert not list(out.glob("work/*/*"))


def test_a_clip_whose_rank_dies_goes_on_from_its_last_state(tmp_path, cluster, tiny):
    """Latents equal those of a clip that was denoised in one go."""
    manifest = write_manifest(tmp_path / "m.parquet", 1, steps=400)
    keys = {"output.save_latents": True, "denoise.checkpoint_every_steps": 20}
    for name in ("calm", "disturbed"):
        (tmp_path / name).mkdir()
    calm = write_config(tmp_path / "calm", tiny("t2v-1.3b"), manifest, **keys, engine="local")
    assert render(calm)[0] == 0
    keys |= {"ray.address": cluster, "pools.denoise.topology.cfg": 2}
    process = start(write_config(tmp_path / "disturbed", tiny("t2v-1.3b"), manifest, **keys))
    out = tmp_path / "disturbed/out"

    def places():
        """Of the gang, as soon as the run has stored its diary."""
        news = events(out, "gang")
        return [item["detail"] for item in news if (item["pool"], item["state"]) == ("denoise", "idle")]

    wait_until(lambda: list(out.glob("work/*/state-*")) and places(), process)
    os.kill(int(places()[-1].split()[1].rpartition(":")[2]), signal.SIGKILL)
    assert process.wait(timeout=240) == 0
    ((key, meta),) = metas(out).items()
    assert meta["attempts"] == 2
    assert [item["cause"] for item in meta["failed_tries"]] == ["worker_died"]
    (note,) = [note for note in meta["notes"] if "went on" in note]
    assert int(note.split()[4].rstrip(",")) % 20 == 0
    assert torch.equal(latents_of(tmp_path / "calm/out")[key], latents_of(out)[key])
