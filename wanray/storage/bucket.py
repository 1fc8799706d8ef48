"""A store in an object store: no folders, no rename, puts that appear whole, answers that may be lost.

Of the layers that would try again, botocore does so once per request (the parts of a large object need it),
s3fs not at all and Store per call: one above the other at their defaults they would go on for minutes.
Whatever is set, aiohttp sends a request again, puts too, when a connection that it had used before is lost.
"""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

import fsspec

from wanray.storage.faults import answer_of

_ERRORS = {
    "s3": ("botocore.exceptions:BotoCoreError", "aiohttp:ClientError"),
    "gs": ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError", "aiohttp:ClientError"),
    "abfs": ("azure.core.exceptions:AzureError",),
}
"""By protocol what its library raises besides OSError; installed wherever the protocol can be opened."""
_S3_REQUESTS = {"retries": {"mode": "standard", "total_max_attempts": 2}, "signature_version": "s3v4"}
_S3_REQUESTS_OF_OTHERS = {"retries": {"mode": "standard", "total_max_attempts": 6}}
"""botocore's settings for readers that have no Store above them to try again."""
_TIMES = ("LastModified", "mtime", "last_modified")
"""Where listings of S3, Google and Azure tell when an object was last put."""
_PART_BYTES = 50 << 20
"""Of an upload to S3 in parts, which objects of twice this size are."""


def options_for(url: str) -> dict[str, Any]:
    """What `fsspec.url_to_fs` has to be told besides `url`."""
    return {"config_kwargs": _S3_REQUESTS} if url.startswith(("s3://", "s3a://")) else {}


class Bucket:
    """What `Store` needs of an object store."""

    def __init__(self, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = root
        self._is_s3 = "s3" in fs.protocol
        self.is_patient = not self._is_s3  # gcsfs and adlfs try for half a minute and more
        where, what = (" (AWS_ENDPOINT_URL)", " (AWS_*, ~/.aws)") if self._is_s3 else ("", "")
        self.remedy = f"check that the store is there{where} and that its credentials{what} allow this"
        self._put_options: dict[str, Any] = {"chunksize": _PART_BYTES} if self._is_s3 else {}
        self.errors = _errors_of(fs)
        if self._is_s3:
            cast(Any, fs).retries = 1

    def read(self, path: str) -> bytes:
        """The whole object."""
        # One request: s3fs would ask for the size first, and for parts of what may have been replaced.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        return cast(bytes, self._fs.cat_file(self._full(path), **options))

    def write(self, path: str, data: bytes) -> None:
        """Put the whole object."""
        self._fs.pipe_file(self._full(path), data, **self._put_options)

    def create(self, path: str, data: bytes) -> bool:
        """Put the whole object unless there is one; False if there is, maybe from a twin of this request."""
        try:
            self._fs.pipe_file(self._full(path), data, mode="create", **self._put_options)
        except OSError as error:
            # s3fs knows only how AWS words the refusal.
            if isinstance(error, FileExistsError) or answer_of(error)[0] == "PreconditionFailed":
                return False
            raise
        return True

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        # Not fs.isfile: it answers False when the store cannot be reached.
        try:
            return self._fs.info(self._full(path))["type"] == "file"
        except FileNotFoundError:
            return False

    def modified(self, path: str) -> float:
        """Unix seconds of the last put."""
        try:
            return self._fs.modified(self._full(path)).timestamp()
        except IsADirectoryError:
            raise FileNotFoundError(path) from None

    def names(self, prefix: str) -> list[str]:
        """Base names of objects and of what would be folders."""
        folder = self._full(prefix)
        try:
            paths = [path.rstrip("/") for path in self._fs.ls(folder, detail=False, refresh=True)]
        except FileNotFoundError:
            return []
        return [path.rpartition("/")[2] for path in paths if path != folder]

    def find(self, prefix: str) -> list[str]:
        """Paths of objects at any depth."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes by path of objects at any depth."""
        return {path: entry["size"] for path, entry in self._listing(prefix).items()}

    def stats(self, prefix: str) -> dict[str, tuple[int, float]]:
        """(bytes, Unix seconds of the last put) by path of objects at any depth."""
        stats: dict[str, tuple[int, float]] = {}
        for path, entry in self._listing(prefix).items():
            moment = next((entry[name] for name in _TIMES if name in entry), None)
            with suppress(FileNotFoundError):  # deleted since
                stats[path] = entry["size"], moment.timestamp() if moment else self.modified(path)
        return stats

    def delete(self, path: str) -> None:
        """Remove the object."""
        self._fs.rm_file(self._full(path))

    def presigned(self, path: str, expires_s: int) -> str:
        """A URL that anybody may read for so long."""
        return self._fs.sign(self._full(path), expiration=expires_s)

    def for_arrow(self, paths: Sequence[str]) -> tuple[fsspec.AbstractFileSystem, list[str]]:
        """A filesystem that tries again by itself, and full paths."""
        fs = self._fs
        if self._is_s3:
            fs = type(fs)(*fs.storage_args, **fs.storage_options | {"config_kwargs": _S3_REQUESTS_OF_OTHERS})
        return fs, [self._full(path) for path in paths]

    def _listing(self, prefix: str) -> dict[str, dict[str, Any]]:
        """What the filesystem tells of each object at any depth."""
        found = cast(dict[str, Any], self._fs.find(self._full(prefix), detail=True))
        # Some servers keep a folder whose last object went, and s3fs then finds the folder.
        files = {path: entry for path, entry in found.items() if entry["type"] == "file"}
        return {path.removeprefix(f"{self._root}/"): entry for path, entry in files.items()}

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")


def _errors_of(fs: fsspec.AbstractFileSystem) -> tuple[type[Exception], ...]:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    names = [name.split(":") for protocol in protocols for name in _ERRORS.get(protocol, ())]
    return OSError, *(getattr(import_module(module), name) for module, name in names)
