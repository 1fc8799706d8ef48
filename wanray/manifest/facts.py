"""Remembers between plans what media are, so that planning again or resuming does not read them again.

A file counts as known while its size and its time of change (or ETag) are the same; whoever renders compares
the content with the digest, so a wrong guess fails a row and never makes a wrong clip.
"""

import json
import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

logger = logging.getLogger(__name__)

TABLE = (
    "CREATE TABLE IF NOT EXISTS media (kind TEXT, uri TEXT, stamp TEXT, facts TEXT, PRIMARY KEY (kind, uri))"
)
BUSY_S = 30.0
"""How long one plan waits for another that writes."""


class MediaFacts:
    """A table in the user's cache folder; without one nothing is remembered."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._base: sqlite3.Connection | None = None
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wanray" / "media.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
            self._base.execute(TABLE)
        except (OSError, sqlite3.Error) as error:
            self._forget(error)

    def get(self, kind: str, uri: str, stamp: str) -> dict[str, Any] | None:
        """The facts of `uri` as they were stored under the same stamp."""
        query = "SELECT facts FROM media WHERE kind = ? AND uri = ? AND stamp = ?"
        with self._lock:
            if self._base is None:
                return None
            try:
                found = self._base.execute(query, (kind, uri, stamp)).fetchone()
            except sqlite3.Error as error:
                return self._forget(error)
        return None if found is None else json.loads(found[0])

    def put(self, entries: Iterable[tuple[str, str, str, Any]]) -> None:
        """Store (kind, uri, stamp, facts as a dataclass) of many media at once."""
        rows = [(kind, uri, stamp, json.dumps(asdict(facts))) for kind, uri, stamp, facts in entries]
        with self._lock:
            if self._base is None or not rows:
                return
            try:
                with self._base:
                    self._base.executemany("INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?)", rows)
            except sqlite3.Error as error:
                self._forget(error)

    def _forget(self, error: Exception) -> None:
        logger.warning("what media are is not remembered, the next plan reads them again: %s", error)
        if self._base is not None:
            with closing(self._base):
                self._base = None
