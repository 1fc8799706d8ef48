"""The digest of a checkpoint's weights: part of every key, so that other weights never pass for these."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wanray.checkpoint import Component
from wanray.records import canonical_json

logger = logging.getLogger(__name__)

CACHED_BYTES = 64 * 2**20
"""Files from this size on keep their digest in a cache, because hashing them takes a while."""
SLOW_BYTES = 4 * 2**30
"""From here on the user is told why nothing happens."""


class Weights(Protocol):
    """What is needed of a checkpoint."""

    @property
    def path(self) -> str: ...

    def files(self) -> list[Path]:
        """Below `path`, always in the same order."""
        ...


def weights_digest(checkpoint: Weights) -> str:
    """sha256 in hex over names and contents of all files of the checkpoint.

    Large files are read once; their digests are cached by path, size and time of change.
    """
    return _digest_below(Path(checkpoint.path), checkpoint.files())


def folder_digest(folder: Path) -> str:
    """The same over all files of a folder that is no checkpoint of Wan's."""
    return _digest_below(folder, _files_of(folder))


def parts_digest(*parts: Component | str | None) -> str:
    """The same of a few networks, and of folders of what else belongs to them, wherever they lie."""
    digests = []
    for part in parts:
        if isinstance(part, Component):
            files = [Path(file) for file in part.files]
            digests += [canonical_json(part.config), _digest([file.name for file in files], files)]
        elif part is not None:
            digests.append(folder_digest(Path(part)))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest_below(folder: Path, files: Sequence[Path]) -> str:
    return _digest([file.relative_to(folder).as_posix() for file in files], files)


def _digest(names: Sequence[str], files: Sequence[Path]) -> str:
    cache = _DigestCache.load()
    new_bytes = sum(file.stat().st_size for file in files if not cache.knows(file))
    if new_bytes > SLOW_BYTES:
        logger.info("hashing %.0f GB of weights, once: the digests are cached", new_bytes / 1e9)
    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(cache.digest, files))
    cache.save()
    lines = [f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(slots=True)
class _DigestCache:
    path: Path
    known: dict[str, str]
    changed: bool = False

    @staticmethod
    def load() -> "_DigestCache":
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wanray" / "digests.json"
        try:
            return _DigestCache(path, json.loads(path.read_text()))
        except (OSError, ValueError):
            return _DigestCache(path, {})

    def knows(self, file: Path) -> bool:
        return _entry(file) in self.known

    def digest(self, file: Path) -> str:
        entry = _entry(file)
        if entry not in self.known:
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if file.stat().st_size < CACHED_BYTES:
                return found
            self.known[entry], self.changed = found, True
        return self.known[entry]

    def save(self) -> None:
        if not self.changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            temporary.write_text(json.dumps(self.known, indent=0))
            temporary.replace(self.path)
        except OSError as error:
            logger.warning("digests of weights are not cached, the next start hashes them again: %s", error)


def _entry(file: Path) -> str:
    status = file.stat()
    return f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
