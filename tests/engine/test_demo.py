"""The demo's trained model shows what prompts say, by any engine, and a wrong number shows."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from runs import latents_of, metas, render, start, wait_until

from tools.demo_model.scenes import split_scenes
from tools.demo_model.scoring import held_out, score

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "demo/ti2v-5b"
MEANT = ("colour", "direction", "background")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def check(scores, least):
    assert all(scores.shares[name] >= least for name in MEANT), scores


def test_held_out_prompts_are_followed(tmp_path):
    check(score(MODEL, held_out(16), tmp_path), 15 / 16)


def test_a_given_image_is_continued_as_the_prompt_says(tmp_path):
    scores = score(MODEL, held_out(16), tmp_path, with_images=True)
    assert scores.first_frame_db >= 22
    assert scores.shares["direction"] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_64_held_out_prompts(tmp_path):
    check(score(MODEL, held_out(), tmp_path), 0.95)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_64_given_images(tmp_path):
    scores = score(MODEL, held_out(), tmp_path, with_images=True)
    assert scores.first_frame_db >= 22
    assert scores.shares["direction"] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_without_guidance_less_is_right(tmp_path):
    """Of 64 clips: what is wrong costs scores, so they are worth having."""
    right = score(MODEL, held_out(), tmp_path / "right")
    broken = score(MODEL, held_out(), tmp_path / "wrong", "defaults.guidance=1")
    assert sum(broken.shares[name] for name in MEANT) <= sum(right.shares[name] for name in MEANT) - 0.05


def keys_of(folder, manifest, **others):
    """The demo's configuration with four prompts of the manifest."""
    keys = {"manifest": manifest, "defaults.prompt": "null", "output.url": folder / "out"}
    keys |= {"output.save_latents": "true", "defaults.num_frames": 9}
    return ["configs/demo.yaml", *(f"{key}={value}" for key, value in (keys | others).items())]


def test_all_engines_render_the_same_clips(tmp_path, cluster):
    """In one process, on Ray, in a gang of two, and after a kill."""
    manifest = tmp_path / "m.jsonl"
    rows = [{"prompt": scene.prompt, "seed": number} for number, scene in enumerate(split_scenes()[1][:4])]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = {
        "local": {"engine": "local"},
        "ray": {"ray.address": cluster},
        "gang": {"ray.address": cluster, "pools.denoise.topology.ulysses": 2},
    }
    for name, keys in runs.items():
        code, output = render(keys_of(tmp_path / name, manifest, **keys))
        assert code == 0, output
    _render_with_a_kill(tmp_path / "killed", manifest)
    local, *others = (latents_of(tmp_path / name / "out") for name in (*runs, "killed"))
    assert len(local) == 4
    for other in others:
        assert other.keys() == local.keys()
        assert all(torch.equal(other[key], local[key]) for key in local)


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
