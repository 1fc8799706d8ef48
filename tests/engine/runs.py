"""Helpers of the engine tests: write a manifest and a config, run the command, read what it left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file

SMALL = {"width": 64, "height": 48, "num_frames": 5, "steps": 4}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def write_manifest(path, num_rows, **columns):
    """A manifest of `num_rows` small requests that differ in their seed."""
    rows = [{"id": f"r{i}", "prompt": f"a cat {i}", "seed": i, **SMALL, **columns} for i in range(num_rows)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_config(folder, model, manifest, **keys):
    """A config file of dotted keys; returns its path."""
    values = {
        "manifest": manifest,
        "model.path": model,
        "output.url": folder / "out",
        "numerics.dtype": "float32",
    }
    lines = [f"{key}: {json.dumps(str(value))}" for key, value in (values | keys).items() if "." not in key]
    dotted = [f"{key}={value}" for key, value in (values | keys).items() if "." in key]
    path = Path(folder) / "config.yaml"
    path.write_text("\n".join(lines) + "\n")
    return [str(path), *dotted]


def command(arguments):
    """`wanray render` as a user starts it."""
    return [str(Path(sys.executable).with_name("wanray")), "render", *arguments]


def render(arguments, timeout=240):
    """Run it to its end; returns (exit code, output of both streams)."""
    done = subprocess.run(
        command(arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | ENVIRONMENT,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def found_by(name, cluster, folder, timeout):
    """What the script `name` beside this file found out: it is started with (cluster, folder), and leaves
    `found.json` there.
    """
    script = Path(__file__).with_name(name)
    done = subprocess.run(
        [sys.executable, str(script), cluster, str(folder)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(script.parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def metas(out):
    """Key -> meta.json of all committed clips."""
    return {path.parent.name: json.loads(path.read_text()) for path in Path(out).glob("clips/*/*/meta.json")}


def videos(out):
    """Key -> names of its video files."""
    found: dict[str, list[str]] = {}
    for path in Path(out).glob("clips/*/*/video-*.mp4"):
        found.setdefault(path.parent.name, []).append(path.name)
    return found


def events(out, name):
    """All events called `name` over all runs, in order of their time."""
    lines = [
        line for path in Path(out).glob("runs/*/events/*.jsonl") for line in path.read_text().splitlines()
    ]
    found = [event for event in map(json.loads, lines) if event["event"] == name]
    return sorted(found, key=lambda event: event["ts"])


def latents_of(out):
    """Key -> final latents of all committed clips."""
    return {
        path.parent.name: load_file(path)["latents"] for path in out.glob("clips/*/*/latents.safetensors")
    }


def start(arguments, stderr=None):
    """`wanray render` in a session of its own, going on beside the test; errors go beside its config."""
    with Path(arguments[0]).with_name("stderr").open("w") as errors:
        return subprocess.Popen(
            command(arguments),
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=stderr or errors,
            text=True,
            start_new_session=True,
        )


def wait_until(condition, process, seconds=180):
    """Return when `condition()` holds; fail when `process` ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended with {process.returncode}: {_errors(process)}"
        assert time.monotonic() < deadline, "the run did not come as far as the fault"
        time.sleep(0.1)


def _errors(process):
    config = next(word for word in process.args if word.endswith(".yaml"))
    return Path(config).with_name("stderr").read_text()[-3000:]
