"""Brings a medium into memory, from a local path or any fsspec URL. Knows nothing of formats."""

import errno
import hashlib
import re
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wanray.errors import InfrastructureError, InputError
from wanray.media.checks import one_line

MAX_BYTES = 4 * 2**30
"""A medium is held in memory as a whole."""
NO_FILE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""How a local disk says that a text, such as a data: URI or a prompt, names no file."""
CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "md5Hash")
"""Entries of a store's listing that change with a file."""
DENIED = (401, 403)
"""HTTP's words for a link that has expired or was never ours."""
TOO_MANY_REQUESTS = 429
PAUSES_S = (0.5, 2.0)
"""Before the second and the third try of a store that fails."""


def read_media(uri: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes at a local path or fsspec URL; a store that fails is tried three times.

    Raises:
        InputError: there is no such file, it may not be read, or it is larger than `max_bytes`; the message
            is the reason, without the name.
        InfrastructureError: its store failed each time.
    """
    for pause_s in PAUSES_S:
        try:
            return _read_once(uri, max_bytes)
        except InfrastructureError:
            time.sleep(pause_s)
    return _read_once(uri, max_bytes)


def _read_once(uri: str, max_bytes: int) -> bytes:
    try:
        return _read(uri, max_bytes)
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
        raise ValueError(f"it has {size} bytes, more than the {max_bytes} that are allowed")
    with fs.open(path, "rb") as file:
        data: bytes = file.read() if size is not None else file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than the {max_bytes} bytes that are allowed")
    return data


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
    """`uri` without user, password and query, which may be credentials."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
