"""One thin layer over fsspec: whole objects below one URL, with an atomic create-if-absent.

Local folders are handled beside fsspec, whose own create is not atomic there; everything else is an object
store. What may pass is tried again; what cannot pass, or did not, becomes a StorageError. Credentials and
endpoints come from the store's standard chain (for S3 the AWS_* variables or ~/.aws), never from a URL.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wanray.errors import ConfigError, StorageError
from wanray.storage.bucket import Bucket, options_for
from wanray.storage.faults import is_transient, remedy_of
from wanray.storage.folder import Folder

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_WAITS_S = (1.0, 2.0, 4.0, 8.0, 8.0)
"""The longest wait before each further try; waits are random, so that many do not come back at once."""
_NUM_CHECK_WAITS = 2
"""Of these for `check`, behind which somebody sits and waits."""


class Store:
    """A folder or bucket; every `path` is relative to its URL, with `/`. Pickles as its URL.

    Methods raise StorageError where the store refuses, or cannot be reached for all of the tries (23 s of
    waits at most).
    """

    def __init__(self, url: str, backend: "_Backend", num_waits: int | None = None) -> None:
        self.url = url
        self._backend = backend
        self._waits_s = () if backend.is_patient else _WAITS_S[:num_waits]

    @staticmethod
    def open(url: str) -> "Store":
        """The store at a local path (made absolute) or at any fsspec URL; nothing is contacted yet."""
        if urlsplit(url).password is not None:
            raise ConfigError("output.url holds a password: leave it out, the store's own variables carry it")
        # Others write to the same store, so a listing is never remembered.
        try:
            fs, root = fsspec.url_to_fs(
                url, use_listings_cache=False, skip_instance_cache=True, **options_for(url)
            )
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"output.url {url} cannot be opened: {error}; use a folder or s3://..."
            ) from None
        if isinstance(fs, LocalFileSystem):
            return Store(root, Folder(Path(root)))
        return Store(url.rstrip("/"), Bucket(fs, root.rstrip("/")))

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def is_remote(self) -> bool:
        """Whether a call costs a round trip, so that many at once, or one listing, are worth while."""
        return isinstance(self._backend, Bucket)

    def hurried(self, num_waits: int = 0) -> "Store":
        """The same place, for calls that try again only so many times: nobody wants to wait for them."""
        return Store(self.url, self._backend, num_waits)

    def uri(self, path: str) -> str:
        """The full name of `path`, for messages."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._call("read", path, self._backend.read, passing=FileNotFoundError)

    def write(self, path: str, data: bytes) -> None:
        """Put the whole object, replacing what was there; nobody ever sees half of it."""
        self._call("write", path, self._backend.write, data)

    def create(self, path: str, data: bytes) -> bool:
        """Put the whole object unless there is one; True if this call created it.

        A bucket cannot tell this call from another that created the very same bytes: both get True. Racing
        callers whose bytes differ have exactly one winner, also where answers are lost.
        """
        created = self._call("create", path, self._backend.create, data)
        return created or (self.is_remote and self._holds(path, data))

    def exists(self, path: str) -> bool:
        """Whether there is an object (not a folder) of this name."""
        return self._call("look for", path, self._backend.exists)

    def modified(self, path: str) -> float:
        """When the object was last put, in Unix seconds by the store's own clock (buckets: whole seconds).

        Raises:
            FileNotFoundError: there is none.
        """
        return self._call("look for", path, self._backend.modified, passing=FileNotFoundError)

    def names(self, prefix: str) -> list[str]:
        """Sorted base names of objects and folders directly below `prefix`; none if it is absent."""
        return sorted(self._call("list", prefix, self._backend.names))

    def find(self, prefix: str) -> list[str]:
        """Sorted paths of all objects at any depth below `prefix`; none if it is absent."""
        return sorted(self._call("list", prefix, self._backend.find))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes by path of what `find` finds; as cheap as that in a bucket, a call each in a folder."""
        return dict(sorted(self._call("list", prefix, self._backend.sizes).items()))

    def stats(self, prefix: str) -> dict[str, tuple[int, float]]:
        """(bytes, time as `modified` tells it, maybe finer) by path, at the cost of `sizes`."""
        return dict(sorted(self._call("list", prefix, self._backend.stats).items()))

    def delete(self, path: str) -> None:
        """Remove the object, and the folders that become empty; it may be absent."""
        with suppress(FileNotFoundError):
            self._call("delete", path, self._backend.delete, passing=FileNotFoundError)

    def presigned(self, path: str, expires_s: int) -> str:
        """A URL by which anybody can read the object for so long; whether there is one is not looked at.

        Raises:
            ConfigError: this kind of store has no such URLs.
        """
        backend = self._backend
        try:
            if isinstance(backend, Bucket):
                return self._call("sign", path, lambda name: backend.presigned(name, expires_s))
        except NotImplementedError:
            pass
        raise ConfigError(f"output.url {self.url} has no presigned URLs: leave out --presign")

    def for_arrow(self, paths: Sequence[str]) -> tuple[fsspec.AbstractFileSystem | None, list[str]]:
        """(filesystem, full paths) for readers that take pyarrow's or fsspec's filesystems; None is local."""
        return self._backend.for_arrow(paths)

    def check(self) -> bool:
        """Write and remove a probe object; True if the store honours create-if-absent.

        Raises:
            StorageError: nothing can be written here; said sooner than by other methods.
        """
        path, hurried = f"work/probe-{uuid4().hex}", self.hurried(_NUM_CHECK_WAITS)
        created, replaced = hurried.create(path, b"first"), hurried.create(path, b"second")
        hurried.delete(path)
        return created and not replaced

    def _holds(self, path: str, data: bytes) -> bool:
        """Whether the object is `data`: a put whose answer was lost is refused when it is sent again."""
        try:
            return self.read(path) == data
        except FileNotFoundError:  # deleted since
            return False

    def _call(
        self,
        verb: str,
        path: str,
        method: Callable[..., _Result],
        *arguments: bytes,
        passing: type[OSError] | tuple[()] = (),
    ) -> _Result:
        """`method(path, *arguments)`, again while there is hope; errors but `passing` turn StorageError."""
        for wait_s in (*self._waits_s, None):
            try:
                return method(path, *arguments)
            except passing:
                raise
            except self._backend.errors as error:
                if wait_s is None or not is_transient(error):
                    raise self._failure(verb, path, error) from error
                _log.warning("trying again to %s %s: %r", verb, self.uri(path), error)
            time.sleep(random.uniform(0, wait_s))
        raise AssertionError("the last try returns or raises")

    def _failure(self, verb: str, path: str, error: Exception) -> StorageError:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        tries = f" ({len(self._waits_s) + 1} tries)" if self._waits_s and is_transient(error) else ""
        remedy = remedy_of(error) or self._backend.remedy
        return StorageError(f"cannot {verb} {self.uri(path)}: {cause}{tries}; {remedy}")


class _Backend(Protocol):
    """What Store needs of a kind of store; names as there, errors as they come, each try for itself."""

    errors: tuple[type[Exception], ...]
    remedy: str
    is_patient: bool
    """Whether its library tries again for long by itself, so that Store must not."""

    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def exists(self, path: str) -> bool: ...
    def modified(self, path: str) -> float: ...
    def names(self, prefix: str) -> list[str]: ...
    def find(self, prefix: str) -> list[str]: ...
    def sizes(self, prefix: str) -> dict[str, int]: ...
    def stats(self, prefix: str) -> dict[str, tuple[int, float]]: ...
    def delete(self, path: str) -> None: ...
    def for_arrow(self, paths: Sequence[str]) -> tuple[fsspec.AbstractFileSystem | None, list[str]]: ...
