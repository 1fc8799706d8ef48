"""Makes the index anew from every meta.json."""

import json
import logging
import time
from dataclasses import dataclass
from itertools import count
from typing import Any

from wanray.records import Clip, Request
from wanray.sinks.index import append_index, index_row
from wanray.sinks.ledger import Ledger
from wanray.storage import threads
from wanray.upkeep.verify import PROGRESS_S

logger = logging.getLogger(__name__)

PART_ROWS = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Reindexed:
    """What was done."""

    num_clips: int
    num_unreadable: int
    """Clips whose meta.json cannot be used, and which are left out."""
    num_parts: int
    num_old_parts: int
    seconds: float


def rebuild_index(ledger: Ledger) -> Reindexed:
    """Write the index anew, then remove the parts that were there at the start.

    Killed in between it leaves rows twice, which readers take. What a run adds meanwhile stays: it has a
    name of its own.

    Raises:
        StorageError: the store cannot be reached.
    """
    store, start_s = ledger.store, time.monotonic()
    old = [name for name in store.names("index") if name.endswith(".parquet")]
    keys = sorted(ledger.committed_keys(set()))
    name, parts, rows, num_rows = f"rebuilt-{time.time_ns():x}", count(), [], 0
    told_s = start_s
    with threads(store) as pool:
        for first in range(0, len(keys), PART_ROWS):
            rows = []
            for row in pool.map(lambda key: _row(ledger, key.hex()), keys[first : first + PART_ROWS]):
                rows += [row] if row else []
                if time.monotonic() - told_s >= PROGRESS_S:
                    told_s = time.monotonic()
                    logger.info("read %d of %d clips", num_rows + len(rows), len(keys))
            if rows:
                append_index(store, name, rows, next(parts))
            num_rows += len(rows)
    for part in old:
        store.delete(f"index/{part}")
    return Reindexed(
        num_clips=num_rows,
        num_unreadable=len(keys) - num_rows,
        num_parts=next(parts),
        num_old_parts=len(old),
        seconds=round(time.monotonic() - start_s, 3),
    )


def _row(ledger: Ledger, key: str) -> dict[str, Any] | None:
    try:
        meta = ledger.read_meta(key)
        if meta is None:  # taken back since
            return None
        request, clip = Request.from_json(json.dumps(meta["request"])), Clip(**meta["video"])
        return index_row(key, meta["ids"], request, clip, meta.get("tags", {}), meta["created_at"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("left out of the index key=%s: its meta.json cannot be used: %r", key, error)
        return None
