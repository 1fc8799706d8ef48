"""The diary of a run: one JSON line per change of state, in objects that are written once and never changed.

Object stores cannot append, so lines wait in memory until they are flushed into the next numbered file.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from wanray.storage import Store, threads

_READ_AHEAD = 64
"""Files that may lie in memory."""


class EventLog:
    """The one writer of a run's events; any thread may emit. A resumed run goes on with the next number."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._folder = _folder(run)
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._next = next_event_file(store, run)

    def emit(self, event: str, **fields: Any) -> None:
        """Add `{"ts": unix seconds, "event": event, **fields}` in memory; fields must be JSON-able.

        A field `ts` says when something happened that is only now known.
        """
        with self._lock:
            entry = {"ts": time.time(), "event": event, **fields}
            entry["ts"] = round(entry["ts"], 3)
            self._lines.append(json.dumps(entry, ensure_ascii=False))

    def flush(self) -> None:
        """Store what is still in memory, as one object.

        Raises:
            StorageError: it could not be stored now; it is kept for the next try.
        """
        with self._lock:
            if not self._lines:
                return
            data = "".join(f"{line}\n" for line in self._lines).encode()
            self._store.write(f"{self._folder}/{event_file(self._next)}", data)
            self._next += 1
            self._lines.clear()


def event_file(number: int) -> str:
    """The name of what holds a stretch of a run's events; numbers begin at 0."""
    return f"{number:06d}.jsonl"


def next_event_file(store: Store, run: str) -> int:
    """The number of the file that the run writes next."""
    names = event_files(store, run)
    return int(names[-1].removesuffix(".jsonl")) + 1 if names else 0


def event_files(store: Store, run: str) -> list[str]:
    """Names of what holds a run's events, oldest first."""
    return store.names(_folder(run))


def read_events(store: Store, run: str, files: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stored events of a run, in the order in which they were emitted: all, or those of `files`."""
    folder, names = _folder(run), iter(event_files(store, run) if files is None else files)
    with threads(store) as pool:
        while some := list(islice(names, _READ_AHEAD)):
            for data in pool.map(lambda name: store.read(f"{folder}/{name}"), some):
                yield from map(json.loads, data.splitlines())


def _folder(run: str) -> str:
    return f"runs/{run}/events"
