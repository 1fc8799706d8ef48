"""Requests that were accepted one by one and have not ended: `queue/<key>.parquet` in the output.

Whoever takes over from an endpoint that is gone finds here what it had promised.
"""

import logging
from io import BytesIO
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.records import Record
from wanray.storage import Store

logger = logging.getLogger(__name__)

PRIORITY, RUN = b"priority", b"run"
"""Entries of a file's metadata."""


class Accepted(NamedTuple):
    """A request, and the run that has promised to render it."""

    record: Record
    priority: int
    run: str


class Backlog:
    """Of one output. Methods raise StorageError where the store fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, accepted: Accepted) -> None:
        """Remember a request until `remove`."""
        told = {PRIORITY: str(accepted.priority).encode(), RUN: accepted.run.encode()}
        sink = BytesIO()
        pq.write_table(accepted.record.to_table().replace_schema_metadata(told), sink)
        self._store.write(_path(accepted.record.key), sink.getvalue())

    def remove(self, key: str) -> None:
        """The request has ended."""
        self._store.delete(_path(key))

    def get(self, key: str) -> Accepted | None:
        """The request, if it was accepted and has not ended."""
        try:
            table = pq.read_table(BytesIO(self._store.read(_path(key))))
            told = table.schema.metadata
            return Accepted(Record.from_table(table), int(told[PRIORITY]), told[RUN].decode())
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is no request and stays: %s", self._store.uri(_path(key)), error)
            return None

    def accepted_keys(self) -> list[str]:
        """Of all requests, those accepted first first, as far as the store's clock tells."""
        found = sorted((when_s, path) for path, (_, when_s) in self._store.stats("queue").items())
        return [path.removeprefix("queue/").removesuffix(".parquet") for _, path in found]


def _path(key: str) -> str:
    return f"queue/{key}.parquet"
