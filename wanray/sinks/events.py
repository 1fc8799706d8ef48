"""The diary of a run: one JSON line per change of state, in objects that are written once and never changed.

Object stores cannot append, so lines wait a moment in memory and go out in numbered files.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from wanray.storage import Store

_FLUSH_AFTER_S = 2.0
_FLUSH_AFTER_LINES = 1000


class EventLog:
    """The one writer of a run's events; any thread may emit. A resumed run goes on with the next number."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._folder = _folder(run)
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._flushed_at_s = time.monotonic()
        names = store.names(self._folder)
        self._next = int(names[-1].removesuffix(".jsonl")) + 1 if names else 0

    def emit(self, event: str, **fields: Any) -> None:
        """Add `{"ts": unix seconds, "event": event, **fields}`; fields must be JSON-able.

        Raises:
            StorageError: the lines could not be stored now; they are kept for the next try.
        """
        with self._lock:
            entry = {"ts": round(time.time(), 3), "event": event, **fields}
            self._lines.append(json.dumps(entry, ensure_ascii=False))
            waited_s = time.monotonic() - self._flushed_at_s
            if waited_s >= _FLUSH_AFTER_S or len(self._lines) >= _FLUSH_AFTER_LINES:
                self._flush()

    def close(self) -> None:
        """Store what is still in memory; may be called again."""
        with self._lock:
            if self._lines:
                self._flush()

    def _flush(self) -> None:
        data = "".join(f"{line}\n" for line in self._lines).encode()
        self._store.write(f"{self._folder}/{self._next:06d}.jsonl", data)
        self._next += 1
        self._lines.clear()
        self._flushed_at_s = time.monotonic()


def read_events(store: Store, run: str) -> Iterator[dict[str, Any]]:
    """All stored events of a run, in the order in which they were emitted."""
    folder = _folder(run)
    for name in store.names(folder):
        for line in store.read(f"{folder}/{name}").splitlines():
            yield json.loads(line)


def _folder(run: str) -> str:
    return f"runs/{run}/events"
