"""A store in a folder of a filesystem that has rename and hard links, such as a local disk or NFS.

Objects are written beside their place and then renamed or linked there, so they appear whole. Folders come
and go with what they hold.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

UNFINISHED = ".unfinished-"
"""Start of the names of files that are still being written; listings leave them out."""


class Folder:
    """What `Store` needs of a folder."""

    errors: tuple[type[Exception], ...] = (OSError,)
    is_patient = False
    remedy = "check that this user may write there and that the disk has room"

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        """The whole file."""
        return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Put the whole file."""
        target = self._root / path
        with self._unfinished(target, data) as whole:
            whole.replace(target)

    def create(self, path: str, data: bytes) -> bool:
        """Put the whole file unless there is one; True if this call created it."""
        target = self._root / path
        with self._unfinished(target, data) as whole:
            try:
                target.hardlink_to(whole)
            except FileExistsError:
                return target.samefile(whole)  # NFS asks again when an answer was lost, and is refused
            return True

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(f"{self._root}/{path}")  # noqa: PTH113 - asked a million times; 3x faster

    def modified(self, path: str) -> float:
        """Unix seconds of the last write."""
        status = (self._root / path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(path)
        return status.st_mtime

    def names(self, prefix: str) -> list[str]:
        """Base names of files and folders."""
        try:
            with os.scandir(self._root / prefix) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(UNFINISHED)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self, prefix: str) -> list[str]:
        """Paths of files at any depth."""
        return [
            (Path(folder) / name).relative_to(self._root).as_posix()
            for folder, _, names in os.walk(self._root / prefix, onerror=_unless_gone)
            for name in names
            if not name.startswith(UNFINISHED)
        ]

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes by path of files at any depth."""
        return {path: size for path, (size, _) in self.stats(prefix).items()}

    def stats(self, prefix: str) -> dict[str, tuple[int, float]]:
        """(bytes, Unix seconds of the last write) by path of files at any depth."""
        stats: dict[str, tuple[int, float]] = {}
        for path in self.find(prefix):
            with suppress(FileNotFoundError):  # deleted since
                status = (self._root / path).stat()
                stats[path] = status.st_size, status.st_mtime
        return stats

    def delete(self, path: str) -> None:
        """Remove the file, and the folders that it was the last in."""
        target = self._root / path
        target.unlink()
        self._remove_empty(target.parent)

    def for_arrow(self, paths: Sequence[str]) -> tuple[None, list[str]]:
        """Full paths."""
        return None, [str(self._root / path) for path in paths]

    @contextmanager
    def _unfinished(self, target: Path, data: bytes) -> Iterator[Path]:
        """A whole copy of `data` on disk beside `target`, under a name of its own; gone afterwards."""
        path = target.with_name(f"{UNFINISHED}{uuid4().hex}")
        file = _open_new(path)
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a node that dies may leave a name without its bytes
            yield path
        finally:
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove `folder`, then those above it, as long as they are empty and below the store's own."""
        with suppress(OSError):
            while self._root in folder.parents:
                folder.rmdir()
                folder = folder.parent


def _open_new(path: Path, num_tries: int = 20) -> BinaryIO:
    """Open the new file `path`, also where a `delete` in its folder removes that folder meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileNotFoundError, FileExistsError):
        if num_tries == 1:
            raise
        return _open_new(path, num_tries - 1)


def _unless_gone(error: OSError) -> None:
    """What os.walk does with a folder that it cannot list: one that is gone holds nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
