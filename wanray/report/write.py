"""Writes the page of a run to where it is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanray.report.data import Scope, collect
from wanray.report.links import make_links
from wanray.report.page import make_page
from wanray.storage import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A page that was written."""

    uri: str
    data: dict[str, Any]
    """What it shows."""


def write_report(store: Store, run: str) -> str:
    """Write `runs/<run>/report.html`, which shows the run's clips; returns its URI.

    Raises:
        StorageError: the store cannot be read or written.
    """
    return write_page(store, run, Scope()).uri


def write_page(
    store: Store, run: str, scope: Scope, *, to: Path | None = None, presign_s: int | None = None
) -> Written:
    """Write the page of a run into the output, or `to` a file.

    presign_s: how many seconds the URLs of pictures and videos are good for, where anybody may open the page;
    None: URLs relative to the page.

    Raises:
        ConfigError: the page could not show anything from there, or the store has no presigned URLs.
        StorageError: the store cannot be read, or the page not written.
    """
    links = make_links(store, to, presign_s)
    data = collect(store, run, links, scope)
    page = make_page(data, links.origin()).encode()
    if to is None:
        store.write(f"runs/{run}/report.html", page)
        return Written(uri=store.uri(f"runs/{run}/report.html"), data=data)
    Store.open(str(to.absolute().parent)).write(to.name, page)
    return Written(uri=str(to.absolute()), data=data)
