"""Brings a medium into memory, from a local path or any fsspec URL. Knows nothing of formats."""

import errno
import hashlib
import io
import re
import time
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wanray.errors import InfrastructureError, InputError, printable
from wanray.media.allowed import MediaRules, allowed
from wanray.media.checks import one_line

MAX_IMAGE_BYTES = 2**28
"""A medium is held in memory as a whole."""
MAX_VIDEO_BYTES = 2**30
"""As MAX_IMAGE_BYTES."""
CHUNK_BYTES = 2**22
"""Read at once where nobody says how many there are."""
NO_FILE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""How a local disk says that a text, such as a data: URI or a prompt, names no file."""
CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "md5Hash")
"""Entries of a store's listing that change with a file."""
DENIED = (401, 403)
"""HTTP's words for a link that has expired or was never ours."""
TOO_MANY_REQUESTS = 429
PAUSES_S = (0.5, 2.0)
"""Before the second and the third try of a store that fails."""


class TooLargeError(InputError):
    """A file that has more bytes than are allowed."""


def read_media(uri: str, max_bytes: int = MAX_VIDEO_BYTES, rules: MediaRules | None = None) -> bytes:
    """The bytes at a local path or fsspec URL; a store that fails is tried three times.

    rules: what may be opened; None: anything.

    Raises:
        InputError: there is no such file, it may not be read, or (TooLargeError) it is larger than
            `max_bytes`; the message is the reason, without the name.
        InfrastructureError: its store failed each time.
    """
    for pause_s in PAUSES_S:
        try:
            return _read_once(uri, max_bytes, rules)
        except InfrastructureError:
            time.sleep(pause_s)
    return _read_once(uri, max_bytes, rules)


def _read_once(uri: str, max_bytes: int, rules: MediaRules | None) -> bytes:
    name = uri if rules is None else allowed(uri, rules)
    try:
        return _read(name, max_bytes)
    except TooLargeError:
        raise
    except FileNotFoundError as error:
        if _status(error) in DENIED:
            raise InputError("access is denied: has the link expired?") from error
        if _is_unreachable(error):
            raise InfrastructureError(f"cannot read {shown(uri)}: its server does not answer") from error
        raise InputError("it does not exist") from error
    except PermissionError as error:
        raise InputError(f"access is denied ({_reason(error)})") from error
    except (ValueError, ImportError) as error:
        raise InputError(_reason(error)) from error
    except OSError as error:
        if "://" in uri or error.errno not in NO_FILE_NAME:
            raise InfrastructureError(f"cannot read {shown(uri)}: {_reason(error)}") from error
        raise InputError("it is no file name") from error
    except Exception as error:  # every store has exception classes of its own
        raise InfrastructureError(f"cannot read {shown(uri)}: {_reason(error)}") from error


def stamp_of(uri: str) -> str | None:
    """What changes when the file does, without reading it; None where nothing tells."""
    try:
        fs, path = _located(uri)
        info = fs.info(path)
    except Exception:  # noqa: BLE001 - whatever it is, reading the file will meet it and say so
        return None
    changed = next((info[name] for name in CHANGED if info.get(name)), None)
    return None if changed is None or "size" not in info else f"{info['size']} {changed}"


def digest(data: bytes) -> str:
    """sha256 in hex: the same bytes under another name are the same medium."""
    return hashlib.sha256(data).hexdigest()


def _read(uri: str, max_bytes: int) -> bytes:
    fs, path = _located(uri)
    info = fs.info(path)
    if info["type"] != "file":
        raise ValueError("it is a folder" if info["type"] == "directory" else "it is no ordinary file")
    size = info["size"]  # None where a server does not say
    if size is not None and size > max_bytes:
        raise TooLargeError(f"it has {size} bytes, more than the {max_bytes} that are allowed")
    # as a stream: fsspec takes whatever a server sends for the range that it asked for
    options = {"block_size": 0} if "https" in fs.protocol else {}
    with fs.open(path, "rb", **options) as file:
        return _whole(file, (size or 0) + CHUNK_BYTES, max_bytes)


def _whole(file: IO[bytes], chunk_bytes: int, max_bytes: int) -> bytes:
    """All of `file`; a read may give less than it was asked for."""
    data = io.BytesIO()
    while chunk := file.read(chunk_bytes):
        data.write(chunk)
        if data.tell() > max_bytes:
            raise TooLargeError(f"it has more than the {max_bytes} bytes that are allowed")
    return data.getvalue()


def _located(uri: str) -> tuple[Any, str]:
    """The filesystem and the path in it; a local name may have what fsspec takes for a chain of URLs."""
    return fsspec.url_to_fs(uri) if "://" in uri else (LocalFileSystem(), uri)


def _is_unreachable(error: FileNotFoundError) -> bool:
    """Whether fsspec took an HTTP server that is away, or has failed itself, for a file that is not there."""
    cause = error.__cause__
    is_away = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return is_away or _status(error) >= 500 or _status(error) == TOO_MANY_REQUESTS


def _status(error: Exception) -> int:
    """The HTTP status behind an error of fsspec; 404 where there is none."""
    return getattr(error.__cause__, "status", 404)


def _reason(error: Exception) -> str:
    """The error's own words, without the queries and passwords of the URLs that they quote."""
    return re.sub(r"\w+://[^\s'\"<>]+", lambda found: shown(found[0]), one_line(error))


def shown(uri: str) -> str:
    """`uri` in one line, without user, password and query, which may be credentials."""
    if "://" not in uri:
        return printable(uri)
    return printable(re.sub(r"//[^/]*@", "//", re.split(r"[?#]", uri, maxsplit=1)[0]))
