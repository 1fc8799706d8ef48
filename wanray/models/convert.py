"""Convert a checkpoint to Diffusers layout once, so that every later start reads half as much.

Each file is written under another name, renamed when it is whole, and noted in the record; the same command
goes on after a kill. Memory holds a piece of one tensor; the source is mapped.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from wanray.checkpoint import open_checkpoint
from wanray.checkpoint.conversion import PARTIAL, Origin, Record, open_record
from wanray.checkpoint.files import safetensors_header
from wanray.digest import weights_digest
from wanray.errors import ConfigError, StorageError
from wanray.models.diffusers_folder import Output, outputs

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What a conversion did."""

    model: str
    num_files: int
    num_kept: int
    """Files that an earlier run had finished."""
    num_tensors: int
    num_bytes: int
    seconds: float


def convert(source: str, folder: str, dtype: str, name: str | None, max_shard_gib: float) -> Converted:
    """Write the checkpoint `source` to `folder` in Diffusers layout, or go on with that.

    Raises:
        ConfigError: `source` is no complete checkpoint, or `folder` cannot take its conversion.
        StorageError: the disk is full or broken; the same command goes on.
    """
    start = time.monotonic()
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not max_shard_gib > 0:
        raise ConfigError(f"--max-shard-gib must be more than 0, got {max_shard_gib:g}")
    checkpoint = open_checkpoint(source, name)
    files = outputs(checkpoint, DTYPES[dtype], int(max_shard_gib * GIB))
    origin = Origin(
        digest=weights_digest(checkpoint),
        model=checkpoint.model.name,
        dtype=dtype,
        max_shard_gib=max_shard_gib,
    )
    try:
        record = open_record(Path(folder), origin, checkpoint.path)
        with _sole_writer(record.folder):
            num_kept = _write_all(files, record)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): "
            "the same command continues the conversion"
        ) from error
    return Converted(
        model=checkpoint.model.name,
        num_files=len(files),
        num_kept=num_kept,
        num_tensors=sum(file.num_tensors for file in files),
        num_bytes=sum(known["bytes"] for known in record.files.values()),
        seconds=time.monotonic() - start,
    )


def _write_all(files: list[Output], record: Record) -> int:
    """Write what is not finished and read it back; returns how many files were finished before."""
    for leftover in record.folder.rglob(f"*{PARTIAL}"):
        leftover.unlink()
    left = [file for file in files if not _is_finished(file, record)]
    _check_room(record.folder, sum(file.num_bytes for file in left))
    for number, file in enumerate(left, 1):
        begin = time.monotonic()
        _write(file, record)
        size_mb, seconds = record.files[file.name]["bytes"] / 1e6, time.monotonic() - begin
        logger.info("file=%s (%d of %d) mb=%.1f seconds=%.1f", file.name, number, len(left), size_mb, seconds)
    logger.info("reading %d files back", len(left))
    _read_back(files, left, record)
    record.finish()
    return len(files) - len(left)


def _is_finished(file: Output, record: Record) -> bool:
    if file.name not in record.files:
        return False
    if record.is_intact(file.name):
        return True
    logger.warning("%s is not what was written there: it is written again", record.folder / file.name)
    return False


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ConfigError(
            f"{folder} has {free / GIB:.1f} GiB of free space, needed are {num_bytes / GIB:.1f} GiB: "
            "free some, or name a folder on another disk"
        )


def _write(file: Output, record: Record) -> None:
    path = record.folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{PARTIAL}")
    with partial.open("wb") as stream:
        sink = _Hashed(stream)
        file.write(sink)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    record.add(file.name, sink.sha256.hexdigest(), path.stat().st_size)


class _Hashed:
    """A stream that keeps the digest of what went through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes | memoryview, /) -> None:
        self.stream.write(data)
        self.sha256.update(data)


def _read_back(files: list[Output], written: list[Output], record: Record) -> None:
    for file in written:
        if not record.is_intact(file.name):
            raise StorageError(
                f"{record.folder / file.name} does not read back as it was written: check the disk; "
                "the same command writes it again"
            )
    for file in files:
        if file.num_tensors and len(safetensors_header(record.folder / file.name)) != file.num_tensors:
            raise StorageError(f"{record.folder / file.name} does not hold {file.num_tensors} tensors")


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Refuse to write where another process does."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(f"{folder} is being written by another `wanray convert`: wait for it") from None
    finally:
        os.close(place)
