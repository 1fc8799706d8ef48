"""Which media may be opened at all: manifests are written by others than those who run them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fsspec.implementations.local import LocalFileSystem

from wanray.errors import InputError, printable

MOST_SHOWN = 40
"""Characters of a scheme in a message: where none was meant it may be anything."""


class MediaRules(Protocol):
    """What `wanray.config.MediaConfig` says."""

    @property
    def allow_schemes(self) -> Sequence[str]:
        """Schemes of URIs; `file` stands for local paths."""
        ...

    @property
    def allow_roots(self) -> Sequence[str] | None:
        """Absolute folders below which local files may lie; None: anywhere; []: nowhere."""
        ...


def allowed(uri: str, rules: MediaRules) -> str:
    """What to open for `uri`: itself, or without symlinks the local file that was found below a root.

    Nothing but the links of local paths is looked at.

    Raises:
        InputError: the rules forbid it; the message is the reason and the remedy, without the name.
    """
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if "://" in uri and "::" in uri:
        raise InputError("chains of stores (::) are not allowed: name the file itself, with %3A for a colon")
    if scheme not in rules.allow_schemes:
        raise InputError(
            f"scheme {printable(scheme)[:MOST_SHOWN]} is not allowed, only "
            f"{', '.join(rules.allow_schemes) or 'none'}: the operator may add it to media.allow_schemes"
        )
    if rules.allow_roots is None or scheme not in LocalFileSystem.protocol:
        return uri
    return _below(uri, rules.allow_roots)


def _below(uri: str, roots: Sequence[str]) -> str:
    try:
        # by fsspec's own reading of the name, which knows file: and ~ as well
        real = os.path.realpath(LocalFileSystem._strip_protocol(uri))
    except ValueError as error:
        raise InputError(f"it is no file name: {error}") from error
    if not any(Path(real).is_relative_to(os.path.realpath(root)) for root in roots):
        told = f"outside {', '.join(roots)}" if roots else "a local file, and none is allowed"
        raise InputError(f"it is {told}: the operator may add its folder to media.allow_roots")
    return real
