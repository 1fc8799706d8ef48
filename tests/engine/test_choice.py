"""Which requests a run takes up: not those that failed for good, unless asked; only those that are named."""

import json
import shutil

import pytest
from runs import SMALL, events, metas, write_config

from wanray.engine import work


@pytest.fixture
def config(tiny, tmp_path, monkeypatch):
    """A config whose manifest has two good rows, one that fails in the model, and one that is invalid."""
    monkeypatch.setattr(work.logger, "disabled", True)  # run_cli takes a logged traceback for a crash
    model = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    settings = model / "transformer" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"rope_max_seq_len": 4}))
    changes = {"a": {}, "b": {}, "large": {"width": 128, "height": 128}, "wrong": {"num_frames": 6}}
    rows = [{"id": name, "prompt": name, "seed": 1, **SMALL, "steps": 1, **changes[name]} for name in changes]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return write_config(tmp_path, model, tmp_path / "m.jsonl", engine="local")


def dispatched(out):
    return [event["key"] for event in events(out, "dispatched") if event["pool"] == "denoise"]


def test_what_failed_for_good_is_left_alone_until_it_is_asked_for(config, run_cli, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run_cli("render", *config)
    assert code == 2
    assert "2 clips committed" in text
    assert len(dispatched(out)) == 3
    code, text, _ = run_cli("render", *config)
    assert code == 2
    assert "1 failed before (--retry-failed)" in text
    assert len(dispatched(out)) == 3
    code, text, _ = run_cli("render", *config, "--retry-failed")
    assert code == 2
    assert len(dispatched(out)) == 4
    (failure,) = [
        json.loads(path.read_text()) for path in out.glob("failures/*") if '"model"' in path.read_text()
    ]
    assert (failure["ids"], failure["class"], failure["attempts"]) == (["large"], "model", 1)


def test_only_what_is_named_is_rendered(config, run_cli, tmp_path):
    code, text, _ = run_cli("render", *config, "--only", "b")
    assert code == 0, text
    assert "2 not asked for" in text
    ((key, meta),) = metas(tmp_path / "out").items()
    assert meta["ids"] == ["b"]
    code, text, _ = run_cli("render", *config, "--only", key[:10], "--only", "a")
    assert code == 0, text
    assert {meta["ids"][0] for meta in metas(tmp_path / "out").values()} == {"a", "b"}
    assert not list((tmp_path / "out").glob("failures/*"))
    code, _, _ = run_cli("render", *config, "--only", "wrong")
    assert code == 2


@pytest.mark.parametrize("name", ["nobody", "0123456789abcdef"])
def test_a_name_that_nothing_has_is_wrong_use(config, run_cli, name):
    code, _, text = run_cli("render", *config, "--only", name)
    assert code == 1
    assert f"--only {name} is neither an id of the manifest nor the start of a key" in text


def test_a_failure_is_tried_again_by_name(config, run_cli, tmp_path):
    run_cli("render", *config)
    (key,) = [path.stem for path in (tmp_path / "out").glob("failures/*") if '"model"' in path.read_text()]
    code, _, _ = run_cli("render", *config, "--only", key)
    assert code == 2
    assert dispatched(tmp_path / "out").count(key) == 2
