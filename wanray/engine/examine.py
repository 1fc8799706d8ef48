"""What one node finds out about itself. Runs there, needs no Ray; judges nothing but what fails outright."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from wanray.checkpoint import open_checkpoint
from wanray.checkpoint.anatomy import plain
from wanray.config.schema import VIDEO_CODECS
from wanray.errors import ConfigError, StorageError
from wanray.hub import resolve
from wanray.sinks.codecs import find_encoder
from wanray.storage import Store

PROBE_BYTES = 16 * 2**20
MACHINE_TIMEOUT_S = 90.0
_PACKAGES = ("wanray", "ray", "diffusers", "transformers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What to look at besides the machine itself."""

    output_url: str | None = None
    marker: str = ""
    """An object that the driver put there."""
    checkpoint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Of one node; units are in the names."""

    versions: dict[str, str]
    machine: dict[str, Any] | None
    """As `wanray.models.machine` prints it."""
    codecs: list[str]
    memory_free_gib: float
    shm_free_gib: float
    temporary_free_gib: float
    write_mb_per_s: float | None
    read_mb_per_s: float | None
    checkpoint_files: str | None
    """Digest of names and sizes."""
    problems: list[str]


def examine(question: Question) -> Answer:
    """Look at this machine, the output and the checkpoint; takes seconds, two minutes at most."""
    problems: list[str] = []
    write_speed, read_speed = _try_store(question, problems) if question.output_url else (None, None)
    files = _try_checkpoint(question.checkpoint, problems) if question.checkpoint else None
    return Answer(
        versions={name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        machine=_machine(problems),
        codecs=sorted({c for codecs in VIDEO_CODECS.values() for c in codecs if find_encoder(c)}),
        memory_free_gib=_memory_free_gib(),
        shm_free_gib=_free_gib("/dev/shm"),
        temporary_free_gib=_free_gib(tempfile.gettempdir()),
        write_mb_per_s=write_speed,
        read_mb_per_s=read_speed,
        checkpoint_files=files,
        problems=problems,
    )


def _machine(problems: list[str]) -> dict[str, Any] | None:
    """Ray hides GPUs from who has not asked for any; here all shall be seen."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-m", "wanray.models.machine"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=MACHINE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        problems.append(
            f"torch or a GPU hangs: nothing was heard for {MACHINE_TIMEOUT_S:.0f} s; see nvidia-smi"
        )
        return None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it died without a word"])[-1]
        problems.append(f"torch cannot be used (exit code {done.returncode}): {said}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _try_store(question: Question, problems: list[str]) -> tuple[float | None, float | None]:
    """(writing, reading) in MB/s."""
    assert question.output_url is not None
    store, path, data = Store.open(question.output_url), f"work/doctor-{uuid4().hex}", os.urandom(PROBE_BYTES)
    try:
        if not store.exists(question.marker):
            problems.append(
                f"{store.url} is another folder here than for the driver: mount one, or name a URL"
            )
            return None, None
        if not store.check():
            problems.append(f"{store.url} does not create if absent: two runs may commit one clip twice")
        began_s = time.perf_counter()
        store.write(path, data)
        written_s = time.perf_counter()
        is_same = store.read(path) == data
        read_s = time.perf_counter()
        store.delete(path)
    except (StorageError, FileNotFoundError) as error:
        problems.append(str(error))
        return None, None
    if not is_same:
        problems.append(f"{store.url} returns other bytes than were written")
    return PROBE_BYTES / 1e6 / (written_s - began_s), PROBE_BYTES / 1e6 / (read_s - written_s)


def _try_checkpoint(path: str, problems: list[str]) -> str | None:
    try:
        checkpoint = open_checkpoint(resolve(path))
        files = sorted((file.name, file.stat().st_size) for file in checkpoint.files())
    except (ConfigError, OSError) as error:
        problems.append(f"checkpoint: {plain(error)}")
        return None
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _memory_free_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def _free_gib(folder: str) -> float:
    return shutil.disk_usage(folder).free / 2**30
