"""One thin layer over fsspec: whole objects below one URL, with an atomic create-if-absent.

Local folders are handled here, because fsspec's own create is not atomic there; everything else is an
object store. Credentials and endpoints come from the store's standard chain (for S3 the AWS_* variables
or ~/.aws) and never from a URL. What is stored where is none of this file's business.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wanray.errors import ConfigError, StorageError

_UNFINISHED = ".unfinished-"
"""Start of the names of local files that are still being written; listings leave them out."""


class Store:
    """A folder or bucket; every `path` is relative to its URL, with `/`. Pickles as its URL.

    Methods raise StorageError where the store cannot be reached, or refuses.
    """

    def __init__(self, url: str, backend: "_Backend") -> None:
        self.url = url
        self._backend = backend

    @staticmethod
    def open(url: str) -> "Store":
        """The store at a local path (made absolute) or at any fsspec URL; nothing is contacted yet."""
        if urlsplit(url).password is not None:
            raise ConfigError("output.url holds a password: leave it out, the store's own variables carry it")
        # Others write to the same store, so a listing is never remembered.
        try:
            fs, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"output.url {url} cannot be opened: {error}; use a folder or s3://..."
            ) from None
        if isinstance(fs, LocalFileSystem):
            return Store(root, _Folder(Path(root)))
        return Store(url.rstrip("/"), _Bucket(fs, root.rstrip("/")))

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def is_remote(self) -> bool:
        """Whether a call costs a round trip, so that many at once, or one listing, are worth while."""
        return isinstance(self._backend, _Bucket)

    def uri(self, path: str) -> str:
        """The full name of `path`, for messages."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._naming("read", path, passing=FileNotFoundError):
            return self._backend.read(path)

    def write(self, path: str, data: bytes) -> None:
        """Put the whole object, replacing what was there; nobody ever sees half of it."""
        with self._naming("write", path):
            self._backend.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Put the whole object unless there is one; True if this call created it."""
        with self._naming("create", path):
            return self._backend.create(path, data)

    def exists(self, path: str) -> bool:
        """Whether there is an object (not a folder) of this name."""
        with self._naming("look for", path):
            return self._backend.exists(path)

    def names(self, prefix: str) -> list[str]:
        """Sorted base names of objects and folders directly below `prefix`; none if it is absent."""
        with self._naming("list", prefix):
            return sorted(self._backend.names(prefix))

    def find(self, prefix: str) -> list[str]:
        """Sorted paths of all objects at any depth below `prefix`; none if it is absent."""
        with self._naming("list", prefix):
            return sorted(self._backend.find(prefix))

    def delete(self, path: str) -> None:
        """Remove the object; it may be absent."""
        with self._naming("delete", path), suppress(FileNotFoundError):
            self._backend.delete(path)

    def for_arrow(self, paths: Sequence[str]) -> tuple[fsspec.AbstractFileSystem | None, list[str]]:
        """(filesystem, full paths) for readers that take pyarrow's or fsspec's filesystems; None is local."""
        return self._backend.for_arrow(paths)

    def check(self) -> bool:
        """Write and remove a probe object; True if the store honours create-if-absent.

        Raises:
            StorageError: nothing can be written here.
        """
        path = f"work/probe-{uuid4().hex}"
        created, replaced = self.create(path, b"first"), self.create(path, b"second")
        self.delete(path)
        return created and not replaced

    @contextmanager
    def _naming(self, verb: str, path: str, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """Turn what the world did into a StorageError that says to whom, except for `passing`."""
        try:
            yield
        except passing:
            raise
        except self._backend.errors as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise StorageError(f"cannot {verb} {self.uri(path)}: {cause}; {self._backend.remedy}") from error


class _Backend(Protocol):
    """What Store needs of a kind of store; names as there, errors as they come."""

    errors: tuple[type[Exception], ...]
    remedy: str

    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def exists(self, path: str) -> bool: ...
    def names(self, prefix: str) -> list[str]: ...
    def find(self, prefix: str) -> list[str]: ...
    def delete(self, path: str) -> None: ...
    def for_arrow(self, paths: Sequence[str]) -> tuple[fsspec.AbstractFileSystem | None, list[str]]: ...


class _Folder:
    """A folder of a filesystem that has rename and hard links."""

    errors: tuple[type[Exception], ...] = (OSError,)
    remedy = "check that this user may write there and that the disk has room"

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        target = self._root / path
        with _unfinished(target, data) as whole:
            whole.replace(target)

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
        with _unfinished(target, data) as whole:
            try:
                target.hardlink_to(whole)
            except FileExistsError:
                return False
            return True

    def exists(self, path: str) -> bool:
        return os.path.isfile(f"{self._root}/{path}")  # noqa: PTH113 - asked a million times; 3x faster

    def names(self, prefix: str) -> list[str]:
        try:
            with os.scandir(self._root / prefix) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(_UNFINISHED)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self, prefix: str) -> list[str]:
        return [
            (Path(folder) / name).relative_to(self._root).as_posix()
            for folder, _, names in os.walk(self._root / prefix)
            for name in names
            if not name.startswith(_UNFINISHED)
        ]

    def delete(self, path: str) -> None:
        (self._root / path).unlink()

    def for_arrow(self, paths: Sequence[str]) -> tuple[None, list[str]]:
        return None, [str(self._root / path) for path in paths]


@contextmanager
def _unfinished(target: Path, data: bytes) -> Iterator[Path]:
    """A whole copy of `data` on disk beside `target`, under a name of its own; gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{_UNFINISHED}{uuid4().hex}")
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a node that dies may leave a name without its bytes
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Bucket:
    """A place in an object store: no folders, no rename, puts that appear whole."""

    remedy = (
        "check that the store is there (AWS_ENDPOINT_URL) and that its credentials (AWS_*, ~/.aws) allow this"
    )

    def __init__(self, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = root
        self.errors = _errors_of(fs)

    def read(self, path: str) -> bytes:
        return cast(bytes, self._fs.cat_file(self._full(path)))

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._full(path), data)

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._full(path), data, mode="create")
        except OSError as error:
            if isinstance(error, FileExistsError) or _code_of(error) in _REFUSALS:
                return False
            raise
        return True

    def exists(self, path: str) -> bool:
        # Not fs.isfile: it answers False when the store cannot be reached.
        try:
            return self._fs.info(self._full(path))["type"] == "file"
        except FileNotFoundError:
            return False

    def names(self, prefix: str) -> list[str]:
        folder = self._full(prefix)
        try:
            paths = [path.rstrip("/") for path in self._fs.ls(folder, detail=False, refresh=True)]
        except FileNotFoundError:
            return []
        return [path.rpartition("/")[2] for path in paths if path != folder]

    def find(self, prefix: str) -> list[str]:
        # Some servers keep a folder whose last object went, and s3fs then finds the folder.
        found = cast(dict[str, Any], self._fs.find(self._full(prefix), detail=True))
        return [path.removeprefix(f"{self._root}/") for path in found if found[path]["type"] == "file"]

    def delete(self, path: str) -> None:
        self._fs.rm_file(self._full(path))

    def for_arrow(self, paths: Sequence[str]) -> tuple[fsspec.AbstractFileSystem, list[str]]:
        return self._fs, [self._full(path) for path in paths]

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")


_REFUSALS = ("PreconditionFailed", "ConditionalRequestConflict")
"""How S3 servers say that another put was first; s3fs knows only AWS's way to word it."""


def _code_of(error: OSError) -> str:
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")


def _errors_of(fs: fsspec.AbstractFileSystem) -> tuple[type[Exception], ...]:
    """OSError, and for S3 what botocore raises before there is an answer: no credentials, no endpoint."""
    if "s3" not in fs.protocol:
        return (OSError,)
    from botocore.exceptions import BotoCoreError

    return OSError, BotoCoreError
