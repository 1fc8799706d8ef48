"""Opens an output that somebody rendered to, and tells the time there."""

import time
from uuid import uuid4

from wanray.errors import ConfigError, StorageError
from wanray.sinks.ledger import Ledger
from wanray.storage import Store

_FOLDERS = {"clips", "failures", "runs", "index"}


def open_output(url: str) -> Ledger:
    """The output of a render.

    Raises:
        ConfigError: there is none.
        StorageError: the store cannot be reached.
    """
    store = Store.open(url)
    try:
        names = store.names("")
    except NotImplementedError:
        raise ConfigError(
            f"URL {url} is of a kind that cannot be listed: name the output.url of a render"
        ) from None
    if _FOLDERS.isdisjoint(names):
        raise ConfigError(f"URL {url} holds no output of wanray: name the output.url of a render")
    return Ledger(store)


def store_now(store: Store) -> float:
    """Unix seconds by the store's clock; by ours where it cannot be written."""
    path = f"work/probe-{uuid4().hex}"
    try:
        store.write(path, b"")
        now_s = store.modified(path)
        store.delete(path)
    except (StorageError, FileNotFoundError):
        return time.time()
    return now_s
