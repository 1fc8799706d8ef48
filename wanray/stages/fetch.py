"""Media behind URIs: the bytes that the plan saw. No torch."""

import socket
from pathlib import Path

from wanray.config import MediaConfig
from wanray.errors import InfrastructureError, InputError
from wanray.media import LoadedImage, digest, load_image, read_media, shown


def read_image(column: str, uri: str, sha256: str, rules: MediaConfig | None) -> LoadedImage:
    """The decoded image behind `uri`; arguments and errors are those of `fetch`."""
    data = fetch(column, uri, sha256, rules)
    try:
        return load_image(data)
    except InputError as error:
        raise InputError(f"{column} {shown(uri)}: {error}") from error


def fetch(column: str, uri: str, sha256: str, rules: MediaConfig | None = None) -> bytes:
    """The bytes of a medium, which must be those that the plan saw.

    rules: what a manifest may name, with absolute roots; None: anything. They are checked again because
        links may have changed. What came inside the manifest lies in the output, where rules do not apply.

    Raises:
        InputError: they cannot be read, or were changed.
        InfrastructureError: their store failed, or this node does not have them.
    """
    if "://" not in uri and not Path(uri).exists():
        raise InfrastructureError(
            f"{column} {shown(uri)}: it is gone, or not on node {socket.gethostname()}: "
            "put media where all nodes find them under one path"
        )
    try:
        data = read_media(uri, rules=None if uri.endswith(f"/inputs/{sha256}") else rules)
    except InputError as error:
        raise InputError(f"{column} {shown(uri)}: {error}") from error
    if digest(data) != sha256:
        raise InputError(
            f"{column} {shown(uri)}: it has changed since it was planned; start the command again"
        )
    return data
