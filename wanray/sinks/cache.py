"""Values that many runs need and that take long to make, kept in a store that all of them share.

An entry is an object `<kind>/<name[:2]>/<name>`, its name a hash of all that decides the value. It starts
with a digest of its place and its content, so that what is damaged, cut short or at a wrong place counts as
absent. A store that fails takes away the help of the cache and nothing else.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from wanray.errors import StorageError
from wanray.records import canonical_json
from wanray.storage import Store

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

KINDS = ("extensions", "texts", "conditions")
"""What may be kept: extended prompts, encoded texts, encoded conditions."""
PAUSE_S = 60.0
"""How long a store that failed is not asked, at least."""

_PATIENCE = 10
"""A store that stays away costs one part in so many of a process's time."""
_FORMAT = "wanray cache 1"
_DIGEST_BYTES = 32
_ENTRY = re.compile(rf"({'|'.join(KINDS)})/([0-9a-f]{{2}})/\2[0-9a-f]{{62}}")
_NUM_REQUESTS = 16
_warned: set[str] = set()
_warning = Lock()


def cache_url(shared: str | None, output_url: str) -> str:
    """Where the cache is: at `shared`, or in the output where none is shared."""
    return shared or f"{output_url.rstrip('/')}/cache"


class Cache:
    """The values of one of `KINDS` in `store`, for any number of threads, processes and clusters at once."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store.hurried()
        self._kind = kind
        # apart, so that a cache that may only be read still helps
        self._reads, self._writes = _Asker(store.url), _Asker(store.url)

    @staticmethod
    def name(*parts: str) -> str:
        """The name of the value that is decided by these texts, in this order: 64 hex digits."""
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def get(self, name: str) -> bytes | None:
        """What was put under `name`, whole; None if there is nothing whole, or the store cannot be asked."""
        path = self._path(name)
        entry = self._reads.ask(self._store.read, path)
        if entry is None:
            return None
        digest, data = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
        if digest == _digest(path, data):
            return data
        logger.warning("cache=%s is damaged and will be made again", self._store.uri(path))
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep `data`; the last of many wins, which heals what is damaged."""
        path = self._path(name)
        self._writes.ask(self._store.write, path, _digest(path, data) + data)

    def _path(self, name: str) -> str:
        path = f"{self._kind}/{name[:2]}/{name}"
        assert _ENTRY.fullmatch(path), path
        return path


@dataclass(frozen=True, kw_only=True, slots=True)
class Trimmed:
    """What a `trim` found and did."""

    entries: int
    """Found, removed or not."""
    bytes: int
    """Of these."""
    removed: int
    """Of these, by this call or by another at the same time."""
    removed_bytes: int
    foreign: int
    """Objects that are no entries of a cache; they were left alone and count nowhere else."""


def trim(store: Store, max_bytes: int, *, dry_run: bool = False) -> Trimmed:
    """Remove the entries that were put first, of all kinds, until at most `max_bytes` are left.

    With `dry_run` nothing is removed, only told.

    Age is by the store's clock, from one listing, and counts from the last put: reading does not make young,
    which would be a write per read. May run beside readers, writers and its like. What is put meanwhile is
    not counted, and an entry that is put again just when its turn comes may go: it is made once more.

    Raises:
        StorageError: the store failed; some may be removed.
    """
    found = store.stats("")
    entries = {path: stat for path, stat in found.items() if _ENTRY.fullmatch(path)}
    num_bytes = sum(size for size, _ in entries.values())
    oldest = _oldest(entries, num_bytes - max_bytes)
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        for _ in pool.map(store.delete, [] if dry_run else oldest):
            pass
    return Trimmed(
        entries=len(entries),
        bytes=num_bytes,
        removed=len(oldest),
        removed_bytes=sum(entries[path][0] for path in oldest),
        foreign=len(found) - len(entries),
    )


def _oldest(entries: dict[str, tuple[int, float]], num_bytes: int) -> list[str]:
    """The fewest oldest of `entries`, (bytes, Unix seconds) by path, that have at least so many bytes."""
    chosen: list[str] = []
    # Ties by path, so that trims at the same time choose the same entries and not twice as many.
    for path in sorted(entries, key=lambda path: (entries[path][1], path)):
        if num_bytes <= 0:
            break
        chosen.append(path)
        num_bytes -= entries[path][0]
    return chosen


def _digest(path: str, data: bytes) -> bytes:
    sha256 = hashlib.sha256(f"{_FORMAT}\n{path}\n".encode())
    sha256.update(data)
    return sha256.digest()


class _Asker:
    """Asks a store, but not again for a while after it failed, and then with one caller first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = Lock()
        self._has_failed = False
        self._asks_at_s = 0.0

    def ask(self, method: Callable[..., _Result], *arguments: str | bytes) -> _Result | None:
        """What `method` returns; None if there is nothing, it fails, or its store is not asked now."""
        start_s = time.monotonic()
        with self._lock:
            if start_s < self._asks_at_s:
                return None
            if self._has_failed:
                self._asks_at_s = start_s + PAUSE_S
        result, failure = None, None
        try:
            result = method(*arguments)
        except FileNotFoundError:
            pass
        except StorageError as error:
            failure = error
        self._learn(failure, time.monotonic() - start_s)
        return result

    def _learn(self, failure: StorageError | None, took_s: float) -> None:
        with self._lock:
            self._has_failed = failure is not None
            self._asks_at_s = time.monotonic() + max(PAUSE_S, _PATIENCE * took_s) if failure else 0.0
        with _warning:
            if failure is not None and self._url not in _warned:
                _warned.add(self._url)
                logger.warning("the cache does not help for now, what it holds is made again: %s", failure)
