"""Opens an output that somebody rendered to, and tells the time there."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from wanray.errors import ConfigError, StorageError
from wanray.sinks.ledger import Ledger
from wanray.storage import Store

_FOLDERS = {"clips", "failures", "runs", "index"}
_NUM_REQUESTS = 16


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


def threads(store: Store) -> ThreadPoolExecutor:
    """As many as keep a remote store, or else this machine's cores, busy."""
    return ThreadPoolExecutor(_NUM_REQUESTS if store.is_remote else os.cpu_count() or 1)
