"""The diary of a run: one JSON line per change of state, in objects that are written once and never changed.

Object stores cannot append, so lines wait in memory until they are flushed into the next numbered file.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from wanray.storage import Store


class EventLog:
    """The one writer of a run's events; any thread may emit. A resumed run goes on with the next number."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._folder = _folder(run)
        self._lock = threading.Lock()
        self._lines: list[str] = []
        names = store.names(self._folder)
        self._next = int(names[-1].removesuffix(".jsonl")) + 1 if names else 0

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
            self._store.write(f"{self._folder}/{self._next:06d}.jsonl", data)
            self._next += 1
            self._lines.clear()


def read_events(store: Store, run: str) -> Iterator[dict[str, Any]]:
    """All stored events of a run, in the order in which they were emitted."""
    folder = _folder(run)
    for name in store.names(folder):
        for line in store.read(f"{folder}/{name}").splitlines():
            yield json.loads(line)


def _folder(run: str) -> str:
    return f"runs/{run}/events"
