"""Jobs on a real head with a token: what is submitted, how it ends, what stopping leaves, how it goes on."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from heads import BIN, ray_head
from runs import ENVIRONMENT, metas, write_manifest

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),  # Ray's way with pathspec
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),  # Ray's way with aiohttp
]


@pytest.fixture(scope="module")
def head():
    with ray_head(num_cpus=8) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """What a user submits: a config, a manifest with a space in its name, and what is not for the cluster."""
    folder = tmp_path_factory.mktemp("user")
    write_manifest(folder / "my clips.parquet", 1, steps=1000, num_frames=41, prompt="ein Kätzchen, 猫")
    config = {
        "manifest": "my clips.parquet",
        "model": {"path": str(tiny("t2v-1.3b"))},
        "output": {"url": str(folder / "out")},
        "numerics": {"dtype": "float32"},
        "denoise": {"checkpoint_every_steps": 100},
    }
    (folder / "night.yaml").write_text(json.dumps(config))
    (folder / ".gitignore").write_text("out/\nsecret.yaml\n")
    (folder / "secret.yaml").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def _as_its_user(head, folder, monkeypatch):
    """In the folder, with the token, and as one who has never heard of Ray's variables."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", head.jobs)
    monkeypatch.chdir(folder)


@contextmanager
def followed(arguments):
    """`wanray submit` beside the test, as in another terminal."""
    process = subprocess.Popen(
        [
            "env",
            "--default-signal=INT",
            BIN / "wanray",
            "submit",
            *arguments,
        ],  # tests in the background ignore it
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition, process, seconds=300):
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s, "the job did not come as far"
        time.sleep(0.1)


def test_stop_drains_and_the_next_job_resumes(folder, run_cli):
    run_cli("job", "list")  # what follows shall not wait for imports
    arguments = ["night.yaml", "defaults.tags.note=it's 3 $HOME 猫"]
    with followed([*arguments, "--id=first"]) as process:
        wait_until(lambda: list((folder / "out").glob("work/*/state-*")), process)
        code, out, _ = run_cli("job", "stop", "first")
        shown = process.communicate(timeout=120)[0]
    assert (code, "has ended: STOPPED" in out) == (0, True)
    assert process.returncode == 3
    assert "wanray plan" in shown, "the log was followed from its start"
    assert "told to stop" in shown
    assert "job first has ended: STOPPED, it was stopped" in shown
    steps = [int(state.name.split("-")[1]) for state in (folder / "out").glob("work/*/state-*")]
    assert max(steps) % 100, "the state of the moment, and not that of a round hundred"

    code, out, _ = run_cli("submit", *arguments)
    assert code == 0, out
    assert "1 clips committed" in out
    (meta,) = metas(folder / "out").values()
    assert meta["request"]["prompt"] == "ein Kätzchen, 猫"
    assert meta["tags"]["note"] == "it's 3 $HOME 猫"
    assert any("went on" in note for note in meta["notes"])


def test_ctrl_c_stops_following_and_not_the_job(folder, run_cli, tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/render.py").write_text("import time; print('at work'); time.sleep(600)")
    for name in ("night.yaml", "my clips.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    with followed(["night.yaml", "--id=sleeper"]) as process:
        assert process.stdout is not None
        assert any(line == "at work\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "job sleeper goes on" in shown
    assert "wanray job stop sleeper --address http://" in shown
    code, out, _ = run_cli("job", "status", "sleeper")
    assert (code, "RUNNING" in out) == (0, True)
    code, out, _ = run_cli("job", "stop", "sleeper")
    assert (code, "has ended: STOPPED" in out) == (0, True)
    assert run_cli("job", "logs", "sleeper", "--follow")[0] == 3


def test_failures_of_rows_are_exit_code_2(folder, run_cli):
    write_manifest(folder / "bad.jsonl.parquet", 1, steps=-1)
    code, out, _ = run_cli("submit", "night.yaml", "manifest=bad.jsonl.parquet", f"output.url={folder}/out-2")
    assert code == 2
    assert "1 failed (1 input)" in out
    assert "has ended: FAILED" in out


def test_what_only_the_cluster_sees_is_wrong_use_too(run_cli):
    code, out, _ = run_cli("submit", "night.yaml", "model.path=/nowhere/wan", "--id", "lost")
    assert code == 1
    assert "error: " in out
    assert "/nowhere/wan" in out
    code, _, err = run_cli("submit", "night.yaml", "--id", "lost", "--no-wait")
    assert code == 1
    assert "a job of this id was submitted" in err
    code, out, _ = run_cli("job", "list", "--json")
    (job,) = [job for job in json.loads(out) if job["id"] == "lost"]
    assert (job["status"], job["exit_code"], job["config"]) == ("FAILED", 1, "night.yaml")
    code, out, _ = run_cli("job", "stop", "lost")
    assert (code, "has ended before" in out) == (0, True)


def test_a_script_of_the_folder_is_preferred_and_no_wait_returns(folder, run_cli):
    (folder / "pipelines").mkdir()
    (folder / "pipelines/render.py").write_text("import os, sys; print(sys.argv[1:], os.environ['GREETING'])")
    code, out, _ = run_cli(
        "submit", "night.yaml", "--only=r0", "--env=GREETING=ni hao", "--id=scripted", "--no-wait"
    )
    assert (code, "wanray job logs --follow scripted" in out) == (0, True)
    code, out, _ = run_cli("job", "logs", "scripted", "--follow")
    assert code == 0
    assert "['night.yaml', '--only=r0'] ni hao" in out
    (folder / "pipelines/render.py").unlink()
    code, out, _ = run_cli("job", "list")
    assert "scripted" in out


def test_a_python_that_is_not_there(run_cli):
    code, out, _ = run_cli("submit", "night.yaml", "--python=no-such-python")
    assert (code, "name its Python with --python" in out) == (1, True)


def test_the_doctor_makes_its_round_as_a_job(head, run_cli):
    code, out, err = run_cli("doctor", "--cluster", "--address", head.jobs)
    assert (code, "healthy: 1 node" in out) == (0, True), out + err


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_token_that_is_missing_or_wrong(token, run_cli, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = run_cli("job", "list")
    assert code == 1
    assert ("refuses the token at hand" if token else "wants a token and none is at hand") in err
    assert "ray get-auth-token" in err


def test_token_in_a_file(head, run_cli, monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(f"{head.token}\n")
    assert run_cli("job", "list")[0] == 0
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert run_cli("job", "list")[0] == 1


def test_wrong_places(head, run_cli):
    for address, code, words in [
        ("ray://127.0.0.1:10001", 1, "neither host:6379"),
        (head.address, 1, "must be the URL of the head's job server"),
        ("http://127.0.0.1:1", 3, "no job server answers"),
        (f"http://{head.address}", 3, "is this the dashboard's port"),
    ]:
        got, _, err = run_cli("job", "list", "--address", address)
        assert (got, words in err) == (code, True), err
    for command in ("status", "logs", "stop"):
        code, _, err = run_cli("job", command, "nope")
        assert (code, "Job nope does not exist" in err) == (1, True), err


def test_a_driver_without_the_token_says_what_may_be_wrong(head, folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    code = (
        "from wanray.config import RayConfig; from wanray.engine.cluster import connect\n"
        f"with connect(RayConfig(address={head.address!r}), []): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "EngineError: no Ray cluster at" in done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr


def test_the_command_line_that_the_issue_names(head, folder):
    """`ray job submit` itself, with our exit code in the job's."""
    words = shlex.split(
        f"job submit --address {head.jobs} --working-dir . -- python -m wanray plan night.yaml x=1"
    )
    done = subprocess.run(
        [BIN / "ray", *words],
        env=os.environ | {"RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "x is not a known key" in done.stdout + done.stderr
    assert done.returncode == 1
