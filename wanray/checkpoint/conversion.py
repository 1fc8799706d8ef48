"""The record of a converted checkpoint: from what it was made, with which options, and each file's digest.

`wanray_convert.json` in the converted folder. Torch-free: `wanray convert` writes it, and
`wanray doctor` reads it.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wanray.errors import ConfigError

RECORD = "wanray_convert.json"
PARTIAL = ".partial"
"""Ending of a file that is being written."""
FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What decides the bytes of a converted folder."""

    digest: str
    """Of the source's files, as in the keys of requests."""
    model: str
    dtype: str
    max_shard_gib: float
    format: int = FORMAT


@dataclass(kw_only=True, slots=True)
class Record:
    """What of a conversion is finished; every change is on disk when the method returns."""

    folder: Path
    origin: Origin
    source: str
    """Where the source lay; another place with the same digest is the same source."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path in the folder -> `sha256` and `bytes`."""
    is_complete: bool = False

    def add(self, name: str, sha256: str, num_bytes: int) -> None:
        """Note that `name` lies under its final name."""
        self.files[name] = {"sha256": sha256, "bytes": num_bytes}
        self.save()

    def finish(self) -> None:
        """Note that all files were written and read back."""
        self.is_complete = True
        self.save()

    def save(self) -> None:
        """Write the record, whole or not at all."""
        content = asdict(self)
        del content["folder"]
        temporary = self.folder / f"{RECORD}{PARTIAL}"
        with temporary.open("w") as stream:
            stream.write(json.dumps(content, indent=1) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.folder / RECORD)

    def is_intact(self, name: str) -> bool:
        """Whether the finished file `name` still has the bytes that were written; reads all of it."""
        file, known = self.folder / name, self.files[name]
        return file.is_file() and file.stat().st_size == known["bytes"] and _digest(file) == known["sha256"]


def read_record(folder: Path) -> Record | None:
    """The record in `folder`; None where there is none.

    Raises:
        ConfigError: what is there is no such record.
    """
    try:
        content = json.loads((folder / RECORD).read_text())
        return Record(folder=folder, **(content | {"origin": Origin(**content["origin"])}))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigError(
            f"{folder / RECORD} is no record of a conversion ({error}): delete {folder} and convert again"
        ) from error


def open_record(folder: Path, origin: Origin, source: str) -> Record:
    """The record to go on with, or a new one in a new or empty folder.

    Raises:
        ConfigError: `folder` holds something else, or a conversion of another origin.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a new folder for the converted checkpoint")
    record = read_record(folder)
    if record is None:
        return _new_record(folder, origin, source)
    there, wanted = asdict(record.origin), asdict(origin)
    if differing := [name for name in wanted if there[name] != wanted[name]]:
        differences = ", ".join(f"{name} {there[name]} instead of {wanted[name]}" for name in differing)
        state = "finished" if record.is_complete else "half-finished"
        raise ConfigError(
            f"{folder} holds the {state} conversion of {record.source} with {differences}: "
            "name another folder, or delete that one"
        )
    return record


def _new_record(folder: Path, origin: Origin, source: str) -> Record:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty and holds no conversion ({RECORD} is missing): name a new or empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder=folder, origin=origin, source=source)
    record.save()
    return record


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
