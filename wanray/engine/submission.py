"""What goes to a cluster: a folder, the shell command that renders in it, and the environment of both.

Knows the user's files and Ray's rules for them; contacts nobody.
"""

import json
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wanray.config import FaultsConfig, RenderConfig, load_config
from wanray.engine.ray_packaging_private import MAX_UPLOAD_BYTES, uploaded_files
from wanray.errors import ConfigError

SCRIPT = "pipelines/render.py"
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Read by the process that Ray starts per job: how long a stopped driver has until it is killed."""
AFTER_DRAIN_S = 30
"""For the summary and for leaving the cluster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A job that nobody has been told of yet."""

    entrypoint: str
    runtime_env: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    id: str | None = None
    """None: Ray makes one up."""
    num_cpus: float = 0
    """That the driver itself holds; more than 0 lets it run on any node, else on the head."""


def make_submission(
    config: Path,
    overrides: Sequence[str] = (),
    flags: Sequence[str] = (),
    *,
    runtime_env: dict[str, Any],
    python: str = "python",
    id: str | None = None,
    num_cpus: float = 0,
) -> Submission:
    """The job that renders `config`, a file inside `runtime_env["working_dir"]`.

    A working_dir that is a URL is not looked into: `config` is then its path in there.

    Raises:
        ConfigError: the configuration is wrong, or would not find on the cluster what it names.
    """
    folder = str(runtime_env["working_dir"])
    loaded, target, renderer = None, str(config), ["-m", "wanray", "render"]
    if "://" not in folder:
        loaded = load_config(config, list(overrides))
        files = _files_to_upload(Path(folder).resolve(), runtime_env.get("excludes") or [])
        target = _place_in(Path(folder).resolve(), config, files)
        _check_places(loaded, files)
        renderer = [SCRIPT] if Path(SCRIPT) in files else renderer
    return Submission(
        entrypoint=shlex.join([python, *renderer, target, *overrides, *flags]),
        runtime_env=_with_time_to_drain(runtime_env, loaded.faults if loaded else FaultsConfig()),
        metadata={"wanray_config": target} | ({"wanray_output": loaded.output.url} if loaded else {}),
        id=id,
        num_cpus=num_cpus,
    )


def read_runtime_env(text: str | None) -> dict[str, Any]:
    """Ray's runtime environment out of a YAML file or JSON text; empty for None.

    Raises:
        ConfigError: neither, or no mapping.
    """
    if text is None:
        return {}
    try:
        is_json = text.lstrip().startswith("{")
        found = json.loads(text) if is_json else yaml.safe_load(Path(text).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"--runtime-env {text} is neither a YAML file nor JSON: {cause}") from None
    if not isinstance(found, dict) or not isinstance(found.get("env_vars") or {}, dict):
        raise ConfigError(f"--runtime-env {text} must be a mapping such as {{env_vars: {{NAME: value}}}}")
    return found


def read_variables(given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with the value it has here.

    Raises:
        ConfigError: it has none here.
    """
    found: dict[str, str] = {}
    for text in given:
        name, has_value, value = text.partition("=")
        if not name or (not has_value and name not in os.environ):
            raise ConfigError(f"--env {text} must be NAME=VALUE, or a variable that is set here")
        found[name] = value if has_value else os.environ[name]
    return found


def _files_to_upload(folder: Path, excludes: list[str]) -> set[Path]:
    if not folder.is_dir():
        raise ConfigError(f"--working-dir {folder} is no folder: name the one to send to the cluster")
    sizes = uploaded_files(folder, excludes)
    total = sum(sizes.values())
    if total > MAX_UPLOAD_BYTES:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
        named = ", ".join(f"{path} ({sizes[path] / 2**20:.0f} MiB)" for path in largest)
        raise ConfigError(
            f"--working-dir {folder} holds {total / 2**20:.0f} MiB to upload, at most "
            f"{MAX_UPLOAD_BYTES / 2**20:.0f} MiB go: list in .gitignore or .rayignore what the job does not "
            f"need (largest: {named}); weights belong on the nodes or in a store"
        )
    return set(sizes)


def _place_in(folder: Path, config: Path, files: set[Path]) -> str:
    """Where the config lies for the job."""
    if not config.resolve().is_relative_to(folder):
        raise ConfigError(
            f"configuration {config} lies outside of --working-dir {folder}, which is what the job gets: "
            "copy it there, or name a folder that holds it"
        )
    place = config.resolve().relative_to(folder)
    if place not in files:
        raise ConfigError(
            f"configuration {config} would not be uploaded: .gitignore or .rayignore leave it out"
        )
    return place.as_posix()


def _check_places(config: RenderConfig, files: set[Path]) -> None:
    """Relative places are in the job's copy of the folder, which goes when the job has ended."""
    for key, url in (("output.url", config.output.url), ("cache.url", config.cache.url)):
        if url is not None and "://" not in url and not Path(url).is_absolute():
            raise ConfigError(
                f"{key} must be a URL or an absolute path that all nodes share, got {url!r}: Ray deletes the "
                "job's folder after the job"
            )
    manifest = config.manifest
    if manifest is None or "://" in manifest or Path(manifest).is_absolute():
        return
    if any(sign in manifest for sign in "*?["):
        return
    if not any(path.is_relative_to(os.path.normpath(manifest)) for path in files):
        raise ConfigError(
            f"manifest {manifest!r} is not among what --working-dir uploads: put it there (.gitignore and "
            ".rayignore leave out), or name a URL"
        )


def _with_time_to_drain(runtime_env: dict[str, Any], faults: FaultsConfig) -> dict[str, Any]:
    """A stopped driver gets as long as it may take; Ray's own 3 s would cut it short."""
    wait_s = str(math.ceil(faults.drain_s) + AFTER_DRAIN_S)
    return runtime_env | {"env_vars": {STOP_WAIT: wait_s} | (runtime_env.get("env_vars") or {})}
