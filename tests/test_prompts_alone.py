"""Rendering prompts that stand in the configuration, without a manifest."""

import json

import pytest
import yaml

PROMPTS = ["a red kite over a grey sea", "rain on a tin roof"]


@pytest.fixture
def config(tiny, tmp_path):
    """A job of two prompts."""
    content = {
        "output": {"url": str(tmp_path / "out")},
        "model": {"path": str(tiny("t2v-1.3b"))},
        "engine": "local",
        "numerics": {"dtype": "float32"},
        "defaults": {"size": "64x64", "num_frames": 5, "steps": 2, "prompt": PROMPTS},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def rendered(tmp_path):
    """The prompts of all committed clips, sorted."""
    metas = (tmp_path / "out").glob("clips/*/*/meta.json")
    return sorted(json.loads(meta.read_text())["request"]["prompt"] for meta in metas)


def test_each_prompt_is_a_row(config, tmp_path, run_cli):
    assert run_cli("render", config)[0] == 0
    assert rendered(tmp_path) == sorted(PROMPTS)


def test_a_typed_prompt_takes_the_place_of_the_list(config, tmp_path, run_cli):
    code, out, _ = run_cli("render", config, "defaults.prompt=a cat, asleep on a piano")
    assert code == 0
    assert "requests   1 to render of 1" in out
    assert rendered(tmp_path) == ["a cat, asleep on a piano"]


def test_they_are_the_requests_that_a_manifest_would_make(config, tmp_path, run_cli):
    run_cli("render", config)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in [*PROMPTS, "a cat"]))
    code, out, _ = run_cli("plan", config, f"manifest={manifest}", "defaults.prompt=null")
    assert code == 0
    assert "requests   1 to render of 3 (2 committed" in out


def test_seeds_and_sweeps_multiply_them(config, run_cli):
    _, out, _ = run_cli("plan", config, "defaults.seeds=[1,2,3]", "sweep.guidance=[3,5]")
    assert "requests   12 to render of 12" in out


def test_one_prompt_is_that_of_rows_without_one(config, tmp_path, run_cli):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"seed": 1}\n{"seed": 2, "prompt": "a dog"}\n')
    code, out, _ = run_cli("render", config, f"manifest={manifest}", "defaults.prompt=a cat")
    assert code == 0, out
    assert rendered(tmp_path) == ["a cat", "a dog"]
