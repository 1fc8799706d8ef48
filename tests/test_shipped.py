"""What the repository ships works: configs, manifests, the job script. `test_docs` looks at the pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanray.config import load_config
from wanray.engine.prepare import prepare

ROOT = Path(__file__).parents[1]
MODELS = {"demo": "t2v-a14b", "demo-images": "ti2v-5b"}
"""Of the configs that are not called as theirs."""


@pytest.mark.parametrize("config", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.stem)
def test_every_config_plans(tiny, tmp_path, monkeypatch, config):
    monkeypatch.chdir(ROOT)
    model = tiny(MODELS.get(config.stem, config.stem))
    overrides = [f"model.path={model}", f"output.url={tmp_path}/out"]
    plan = prepare(load_config(config, overrides), write=False).plan
    assert (plan.counts.left, plan.counts.invalid) == (plan.counts.rows, 0)
    assert plan.counts.rows in (4, 8)
    assert plan.notes == ()


def run(*command, **variables):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_the_job_script_renders_the_manifest_with_errors(tiny, tmp_path):
    arguments = [f"model.path={tiny('t2v-a14b')}", f"output.url={tmp_path}/out", "engine=local"]
    manifest = "manifest=manifests/with-errors.parquet"
    arguments += ["defaults.prompt=null", manifest]
    done = run(sys.executable, "pipelines/render.py", "configs/demo.yaml", *arguments)
    assert done.returncode == 2, done.stderr
    assert "2 clips committed, 0 were committed before, 8 failed (8 input)" in done.stdout
    assert len(list(tmp_path.glob("out/failures/*.json"))) == 8


def test_help_is_quick_to_import():
    """The command line must not pull in what only a run needs."""
    code = "import sys, wanray.cli; print(*sys.modules)"
    modules = set(run(sys.executable, "-c", code).stdout.split())
    assert not modules & {"torch", "ray", "pyarrow", "omegaconf", "diffusers"}
