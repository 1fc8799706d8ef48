"""How many requests to a store are worth having under way."""

import os
from concurrent.futures import ThreadPoolExecutor

from wanray.storage.store import Store

_NUM_REQUESTS = 16


def threads(store: Store) -> ThreadPoolExecutor:
    """As many as keep a remote store, or else this machine's cores, busy."""
    return ThreadPoolExecutor(_NUM_REQUESTS if store.is_remote else os.cpu_count() or 1)
