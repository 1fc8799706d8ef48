"""What a submission is made of, and what is refused before anything is uploaded."""

import json
import shlex
from pathlib import Path

import pytest

from wanray.engine import submission
from wanray.engine.submission import make_submission, read_runtime_env, read_variables
from wanray.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Ray's way
CONFIG = {"manifest": "m.jsonl", "model": {"path": "/models/wan"}, "output": {"url": "s3://bucket/night"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/night.yaml").write_text(json.dumps(CONFIG))
    (tmp_path / "m.jsonl").write_text('{"prompt": "a cat"}\n')
    return tmp_path


def submit(*overrides, config="configs/night.yaml", flags=(), **environment):
    environment = {"working_dir": "."} | environment
    return make_submission(Path(config), overrides, flags, runtime_env=environment)


def test_the_command_survives_the_shell(folder):
    overrides = ['defaults.tags.note=it\'s $HOME "猫"', "sweep.steps=[20, 50]"]
    made = submit(*overrides, flags=["--only=r 1", "--retry-failed"])
    assert shlex.split(made.entrypoint) == [
        *("python", "-m", "wanray", "render", "configs/night.yaml"),
        *overrides,
        *("--only=r 1", "--retry-failed"),
    ]
    assert made.metadata == {"wanray_config": "configs/night.yaml", "wanray_output": "s3://bucket/night"}


def test_the_folder_s_own_script_renders(folder):
    (folder / "pipelines").mkdir()
    (folder / "pipelines/render.py").touch()
    assert submit().entrypoint == "python pipelines/render.py configs/night.yaml"
    (folder / ".rayignore").write_text("pipelines/\n")
    assert submit().entrypoint == "python -m wanray render configs/night.yaml"


def test_a_config_is_named_as_the_job_sees_it(folder, monkeypatch):
    monkeypatch.chdir(folder / "configs")
    assert submit(config="night.yaml", working_dir="..").entrypoint.endswith("render configs/night.yaml")


def test_a_stopped_driver_has_time_to_drain(folder):
    assert submit().runtime_env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "150"}
    assert submit("faults.drain_s=10.5").runtime_env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "41"}
    given = {"RAY_JOB_STOP_WAIT_TIME_S": "7", "OTHER": "x"}
    assert submit(env_vars=given).runtime_env["env_vars"] == given


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["denoise.chekpoint=1"], "is not a known key"),
        (["output.url=out/night"], "output.url must be a URL or an absolute path that all nodes share"),
        (["cache.url=cache"], "cache.url must be a URL or an absolute path"),
        (["manifest=other.jsonl"], "manifest 'other.jsonl' is not among what"),
    ],
)
def test_what_cannot_work_there_is_refused_here(overrides, words, folder):
    with pytest.raises(ConfigError, match=words):
        submit(*overrides)


def test_manifests_that_the_job_finds(folder):
    (folder / "parts").mkdir()
    (folder / "parts/1.jsonl").touch()
    for manifest in ("parts", "./parts/1.jsonl", "parts/*.jsonl", "s3://bucket/m.parquet", "/data/m.parquet"):
        assert submit(f"manifest={manifest}").entrypoint.endswith(shlex.quote(f"manifest={manifest}"))


def test_configs_that_would_not_arrive(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "night.yaml"
    elsewhere.write_text(json.dumps(CONFIG))
    with pytest.raises(ConfigError, match="lies outside of --working-dir"):
        submit(config=str(elsewhere))
    (folder / ".gitignore").write_text("configs/\n")
    with pytest.raises(ConfigError, match=r"would not be uploaded: \.gitignore"):
        submit()
    with pytest.raises(ConfigError, match="is no folder"):
        submit(working_dir="nowhere")


def test_folders_that_are_too_large(folder, monkeypatch):
    monkeypatch.setattr(submission, "MAX_UPLOAD_BYTES", 2**20)
    (folder / "weights.bin").write_bytes(bytes(2**20))
    with pytest.raises(ConfigError, match=r"at most 1 MiB go: .*largest: weights\.bin \(1 MiB\)"):
        submit()
    assert submit(excludes=["*.bin"]).entrypoint
    (folder / ".rayignore").write_text("weights.bin\n")
    assert submit().entrypoint


def test_a_folder_that_lies_in_a_store_is_not_looked_into(folder):
    made = submit("x=1", config="a/b.yaml", working_dir="s3://bucket/code.zip")
    assert made.entrypoint == "python -m wanray render a/b.yaml x=1"
    assert made.runtime_env["working_dir"] == "s3://bucket/code.zip"


def test_runtime_environments(folder):
    assert read_runtime_env(None) == {}
    assert read_runtime_env('{"pip": ["x"]}') == {"pip": ["x"]}
    (folder / "env.yaml").write_text("env_vars: {A: b}\n")
    assert read_runtime_env("env.yaml") == {"env_vars": {"A": "b"}}
    (folder / "list.yaml").write_text("[1]\n")
    for wrong in ("nowhere.yaml", "{", "list.yaml", '{"env_vars": 3}'):
        with pytest.raises(ConfigError, match="--runtime-env"):
            read_runtime_env(wrong)


def test_variables(monkeypatch):
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.delenv("ABSENT", raising=False)
    assert read_variables(["A=b=c", "EMPTY=", "SECRET"]) == {"A": "b=c", "EMPTY": "", "SECRET": "s"}
    for wrong in ("ABSENT", "=x"):
        with pytest.raises(ConfigError, match="--env"):
            read_variables([wrong])
