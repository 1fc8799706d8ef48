"""The demo's trained models show what prompts say, by any engine, and a wrong number shows."""

import contextlib
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import latents_of, metas, render, start, wait_until

from tools.demo_model.scenes import split_scenes
from tools.demo_model.scorer import look
from tools.demo_model.scoring import held_out, score
from tools.score_demo_model import swap_experts
from wanray.media.video import probe_video, read_frames

ROOT = Path(__file__).parents[2]
ONE, TWO = ROOT / "demo/ti2v-5b", ROOT / "demo/t2v-a14b"
"""With one expert, for texts and images; with two, for texts."""
MEANT = ("colour", "direction", "background")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def check(scores, least):
    assert all(scores.shares[name] >= least for name in MEANT), scores


def total(scores):
    return sum(scores.shares[name] for name in MEANT)


@pytest.fixture(scope="module")
def two_experts(tmp_path_factory):
    """What the model with two experts scores."""
    with contextlib.chdir(ROOT):
        return score(TWO, held_out(12), tmp_path_factory.mktemp("two"))


def test_held_out_prompts_are_followed(two_experts):
    check(two_experts, 11 / 12)


def test_experts_that_changed_places_show(tmp_path, two_experts):
    swapped = score(swap_experts(TWO, tmp_path / "swapped"), held_out(12), tmp_path / "out")
    assert swapped.shares["clean"] <= two_experts.shares["clean"] - 0.2


def test_a_given_image_is_continued_as_the_prompt_says(tmp_path):
    scores = score(ONE, held_out(12), tmp_path, with_images=True)
    assert scores.first_frame_db >= 22
    assert scores.shares["direction"] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", [ONE, TWO], ids=lambda model: model.name)
def test_64_held_out_prompts(tmp_path, model):
    check(score(model, held_out(), tmp_path), 0.95)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_64_given_images(tmp_path):
    scores = score(ONE, held_out(), tmp_path, with_images=True)
    assert scores.first_frame_db >= 22
    assert scores.shares["direction"] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", [ONE, TWO], ids=lambda model: model.name)
def test_what_is_wrong_costs_scores(tmp_path, model):
    """Of 64 clips: so they are worth having."""
    right = score(model, held_out(), tmp_path / "right")
    unguided = score(model, held_out(), tmp_path / "unguided", "defaults.guidance=1")
    assert total(unguided) <= total(right) - 0.05
    shifted = score(model, held_out(), tmp_path / "shifted", "defaults.shift=50")
    assert shifted.shares["clean"] <= right.shares["clean"] - 0.1


def keys_of(folder, manifest, **others):
    """The demo's configuration with four prompts of the manifest, for two experts."""
    keys = {"manifest": manifest, "model.path": TWO, "defaults.prompt": "null", "output.url": folder / "out"}
    keys |= {"output.save_latents": "true", "defaults.num_frames": 9}
    return ["configs/demo.yaml", *(f"{key}={value}" for key, value in (keys | others).items())]


def seen_in(out):
    """Key -> what the clip shows."""
    seen = {}
    for key, meta in metas(out).items():
        data = (out / meta["video"]["path"]).read_bytes()
        frames = read_frames(data, range(probe_video(data).num_frames))
        seen[key] = look(np.stack(list(frames)))
    return seen


def test_all_engines_render_the_same_clips(tmp_path, cluster):
    """In one process, by two pools on Ray, by gangs of two ranks, and after a kill."""
    manifest = tmp_path / "m.jsonl"
    scenes = split_scenes()[1][:4]
    rows = [{"prompt": scene.prompt, "seed": number} for number, scene in enumerate(scenes)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    on_ray = {"ray.address": cluster, "placement": "split"}
    halves = {"pools.denoise_high.topology.ulysses": 2, "pools.denoise_low.topology.cfg": 2}
    runs = {"local": {"engine": "local"}, "split": on_ray, "gangs": on_ray | halves}
    for name, keys in runs.items():
        code, output = render(keys_of(tmp_path / name, manifest, **keys))
        assert code == 0, output
    _render_with_a_kill(tmp_path / "killed", manifest)
    local, *others = (latents_of(tmp_path / name / "out") for name in (*runs, "killed"))
    assert len(local) == 4
    for other in others:
        assert other.keys() == local.keys()
        assert all(torch.equal(other[key], local[key]) for key in local)
    shown, *others = (seen_in(tmp_path / name / "out") for name in (*runs, "killed"))
    assert all(other == shown for other in others)
    asked = {key: meta["request"]["prompt"] for key, meta in metas(tmp_path / "local/out").items()}
    assert all(seen.direction in asked[key] and seen.colour in asked[key] for key, seen in shown.items())


def _render_with_a_kill(folder, manifest):
    folder.mkdir()
    (folder / "c.yaml").write_text(Path("configs/demo.yaml").read_text())
    arguments = [str(folder / "c.yaml"), *keys_of(folder, manifest, engine="local")[1:]]
    process = start(arguments)
    wait_until(lambda: metas(folder / "out"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    assert 1 <= len(metas(folder / "out")) < 4
    code, output = render(arguments)
    assert code == 0, output
