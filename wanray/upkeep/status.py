"""What an output holds: clips, failures by kind, runs. Opens no clip, and few of many failure records."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from wanray.sinks.index import indexed_bytes
from wanray.sinks.ledger import Ledger
from wanray.storage import threads
from wanray.upkeep.output import store_now
from wanray.upkeep.runs import RunView, read_runs

MAX_RUNS = 10
MAX_FAILURES_READ = 200
MAX_MESSAGES = 5
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """The failure records of an output."""

    count: int
    num_read: int
    """Of which the rest of this is told; fewer than `count` are a sample."""
    kinds: list[dict[str, Any]]
    """`class`, `cause`, `count`, the most frequent first."""
    messages: list[dict[str, Any]]
    """`message`, an example where some differ only in numbers, and `count`; the most frequent first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """An output at one moment."""

    url: str
    committed: int
    num_indexed: int
    """Committed clips that are in the index."""
    bytes: int
    """Of their video files."""
    failures: Failures
    runs: list[RunView]
    """Newest first."""
    num_runs: int


def read_status(ledger: Ledger) -> Status:
    """Look at everything.

    Raises:
        StorageError: the store cannot be reached.
    """
    store = ledger.store
    sizes = indexed_bytes(store)
    committed = ledger.committed_keys(set(sizes))
    known = [sizes[key] for key in committed & sizes.keys()]
    return Status(
        url=store.url,
        committed=len(committed),
        num_indexed=len(known),
        bytes=sum(known),
        failures=_failures(ledger),
        runs=read_runs(store, store_now(store), MAX_RUNS),
        num_runs=len(store.names("runs")),
    )


def _failures(ledger: Ledger) -> Failures:
    keys = ledger.failures()
    # Evenly spread over the keys, which are hashes.
    sample = keys[:: max(1, -(-len(keys) // MAX_FAILURES_READ))]
    with threads(ledger.store) as pool:
        records = [record for record in pool.map(ledger.read_failure, sample) if record is not None]
    kinds = Counter((record.get("class", UNKNOWN), record.get("cause", UNKNOWN)) for record in records)
    messages = [" ".join(record.get("message", "").split()) for record in records]
    examples = {_shape(message): message for message in reversed(messages)}
    shapes = Counter(map(_shape, messages)).most_common(MAX_MESSAGES)
    return Failures(
        count=len(keys),
        num_read=len(records),
        kinds=[
            {"class": name, "cause": cause, "count": count} for (name, cause), count in kinds.most_common()
        ],
        messages=[{"message": examples[shape], "count": count} for shape, count in shapes],
    )


def _shape(message: str) -> str:
    """The message without what tells one row from another: keys and numbers."""
    return re.sub(r"\b[0-9a-f]{16,}\b|\d+", "#", message)
