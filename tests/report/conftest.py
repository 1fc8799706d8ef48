"""A run that was really rendered, and one with clips in every format that lies there quickly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_outputs import write_night

from wanray.config import load_config
from wanray.engine.job import execute
from wanray.engine.prepare import prepare
from wanray.errors import ExitCode
from wanray.storage import Store


@pytest.fixture(scope="session")
def rendered_run(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]) -> Path:
    """`config.yaml` and `out/` with the run `first`: two seeds of one prompt, and a bad row."""
    folder = tmp_path_factory.mktemp("reported")
    rows = [{"id": f"r{seed}", "prompt": "a cat", "seed": seed, "scene": "indoors"} for seed in range(2)]
    rows.append({"id": "bad", "prompt": "a dog", "width": 63})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = {
        "manifest": str(folder / "rows.jsonl"),
        "model": {"path": str(tiny("t2v-1.3b"))},
        "engine": "local",
        "run": "first",
        "numerics": {"dtype": "float32"},
        "defaults": {"width": 64, "height": 48, "num_frames": 5, "steps": 2},
        "output": {"url": str(folder / "out")},
    }
    (folder / "config.yaml").write_text(json.dumps(values))
    summary = execute(prepare(load_config(folder / "config.yaml", []), write=True))
    assert (summary.committed, summary.exit_code) == (2, ExitCode.FAILURES)
    return folder


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of that output, and its keys by name."""
    folder = tmp_path_factory.mktemp("night") / "out"
    return folder, write_night(Store.open(str(folder)))
