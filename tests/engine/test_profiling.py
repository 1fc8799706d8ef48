"""`wanray profile`: what is measured, kept, and used by the next plan; nothing else is left behind."""

import json
import os
import subprocess
from functools import partial

import pytest
from runs import command, render, write_config

from wanray.plan.profile import Profile
from wanray.storage import Store


@pytest.fixture
def world(tiny, tmp_path):
    """A config of three requests in two sizes, for the local engine, and its output."""
    manifest = tmp_path / "m.jsonl"
    rows = [
        {"prompt": f"p {seed}", "seed": seed, "width": 64, "height": 48, "num_frames": 5} for seed in range(2)
    ]
    rows.append(rows[0] | {"width": 96})
    manifest.write_text("\n".join(json.dumps(row | {"steps": 30, "guidance": 4.0}) for row in rows))
    config = write_config(tmp_path, tiny("t2v-a14b"), manifest, engine="local")
    return config, Store.open(str(tmp_path / "out"))


def entries_of(store, stage):
    profile = Profile.from_json(store.read("profile.json"))
    return {(entry.width, entry.topology): entry for entry in profile.measured if entry.stage == stage}


def test_each_size_is_measured_and_the_plan_rests_on_it(world, run_cli):
    config, store = world
    code, out, err = run_cli("profile", *config, "--steps", "6")
    assert code == 0, err
    found = entries_of(store, "denoise")
    assert set(found) == {(64, ""), (96, "")}
    assert all((entry.count, entry.num_steps, entry.guided) == (3, 6, True) for entry in found.values())
    assert all(entry.mean_s == entry.median_s > 0 for entry in found.values())
    assert {"encode", "decode"} <= {
        entry.stage for entry in Profile.from_json(store.read("profile.json")).measured
    }
    assert store.names("") == ["profile.json"], "the samples were left behind"
    assert "64x48" in out
    assert "96x48" in out
    code, out, _ = run_cli("plan", *config)
    assert code == 0
    assert "denoise: measured in run profile.json, 6 clips" in out.replace("encode, ", "").replace(
        ", decode", ""
    )


def test_steps_are_scaled_to_those_of_the_requests(world, run_cli):
    config, store = world
    assert run_cli("profile", *config, "--steps", "6", "-q")[0] == 0
    _, out, _ = run_cli("plan", *config, "--json")
    (pool,) = [pool for pool in json.loads(out)["pools"] if pool["name"] == "denoise"]
    small, large = (entries_of(store, "denoise")[width, ""].mean_s for width in (64, 96))
    assert pool["mean_s"] == pytest.approx((2 * small + large) / 3 * 30 / 6, rel=0.02)


def test_placements_are_measured_side_by_side_and_kept_with_those_before(world, run_cli):
    config, store = world
    assert run_cli("profile", *config, "--steps", "4", "-q", "--compare", "placement=both,split")[0] == 0
    stages = {entry.stage for entry in Profile.from_json(store.read("profile.json")).measured}
    assert {"denoise", "denoise_high", "denoise_low"} <= stages
    before = entries_of(store, "denoise")
    assert run_cli("profile", *config, "placement=split", "--steps", "4", "-q")[0] == 0
    assert entries_of(store, "denoise") == before
    assert store.names("") == ["profile.json"]


def test_a_profile_of_another_model_is_replaced(world, tiny, run_cli):
    config, store = world
    ask = partial(run_cli, "profile", *config, "--steps", "4", "-q")
    assert ask()[0] == 0
    code, _, err = ask("model.path=" + str(tiny("t2v-1.3b")))
    assert code == 0
    assert Profile.from_json(store.read("profile.json")).model == "t2v-1.3b"
    assert "its model is t2v-a14b, not t2v-1.3b" in err


def test_a_manifest_without_valid_rows_measures_nothing(world, tmp_path, run_cli):
    config, store = world
    (tmp_path / "m.jsonl").write_text('{"prompt": "x", "width": 7}')
    code, _, err = run_cli("profile", *config)
    assert code == 3
    assert "nothing was measured: the manifest has no valid row" in err
    assert store.names("") == []


def test_a_render_beside_a_profile_is_left_alone(world, run_cli):
    config, store = world
    assert render([*config, "defaults.steps=2"])[0] == 0
    before = store.find("clips")
    assert run_cli("profile", *config, "--steps", "4", "-q")[0] == 0
    assert store.find("clips") == before


@pytest.mark.timeout(400)
def test_topologies_are_measured_one_after_another_on_a_cluster(tiny, tmp_path, cluster):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "x", "width": 64, "height": 48, "num_frames": 5, "guidance": 4.0}')
    keys = {"ray.address": cluster, "placement": "both"}
    config = write_config(tmp_path, tiny("t2v-a14b"), manifest, **keys)
    ask = [command([])[0], "profile", *config, "--steps", "4", "-q", "--compare", "topology.ulysses=1,2"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=380, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    store = Store.open(str(tmp_path / "out"))
    found = entries_of(store, "denoise")
    assert {name: entry.world_size for (_, name), entry in found.items()} == {"": 1, "ulysses 2": 2}
    assert store.names("") == ["profile.json"]
