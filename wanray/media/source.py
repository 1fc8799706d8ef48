"""Brings a medium into memory, from a local path or any fsspec URL. Knows nothing of formats."""

import errno
import hashlib
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wanray.errors import InfrastructureError, InputError
from wanray.media.checks import one_line

MAX_BYTES = 4 * 2**30
"""A medium is held in memory as a whole."""
NO_FILE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""How a local disk says that a text, such as a data: URI or a prompt, names no file."""


def read_media(uri: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes at a local path or fsspec URL.

    Raises:
        InputError: there is no such file, it may not be read, or it is larger than `max_bytes`; the message
            is the reason, without the name.
        InfrastructureError: its store failed; another try may succeed.
    """
    try:
        return _read(uri, max_bytes)
    except FileNotFoundError as error:
        if _is_unreachable(error):
            raise InfrastructureError(f"cannot read {shown(uri)}: its server does not answer") from error
        raise InputError("it does not exist") from error
    except PermissionError as error:
        raise InputError(f"access is denied ({one_line(error)})") from error
    except (ValueError, ImportError) as error:
        raise InputError(one_line(error)) from error
    except OSError as error:
        if "://" in uri or error.errno not in NO_FILE_NAME:
            raise InfrastructureError(f"cannot read {shown(uri)}: {one_line(error)}") from error
        raise InputError("it is no file name") from error
    except Exception as error:  # every store has exception classes of its own
        raise InfrastructureError(f"cannot read {shown(uri)}: {one_line(error)}") from error


def digest(data: bytes) -> str:
    """sha256 in hex: the same bytes under another name are the same medium."""
    return hashlib.sha256(data).hexdigest()


def _read(uri: str, max_bytes: int) -> bytes:
    # a local name may have what fsspec takes for a chain of URLs
    fs, path = fsspec.url_to_fs(uri) if "://" in uri else (LocalFileSystem(), uri)
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


def _is_unreachable(error: FileNotFoundError) -> bool:
    """Whether fsspec took an HTTP server that is away, or has failed itself, for a file that is not there."""
    cause = error.__cause__
    is_away = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return is_away or getattr(cause, "status", 404) >= 500


def shown(uri: str) -> str:
    """`uri` without user, password and query, which may be credentials."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
