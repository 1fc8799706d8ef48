"""Checks all clips of an output, and gives broken ones back to the next render."""

import logging
import random
import time
from collections.abc import Iterator, Sequence

from wanray.sinks.index import drop_from_index, indexed_keys
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.storage import threads
from wanray.upkeep.clip import Damage, check_clip

logger = logging.getLogger(__name__)

PROGRESS_S = 30.0
_NUM_AT_ONCE = 256


def keys_to_check(ledger: Ledger, sample: int | None) -> list[str]:
    """The keys of all clips, or of `sample` at random, sorted.

    What the index has is a clip too: if its meta.json is gone, something took it.
    """
    indexed = indexed_keys(ledger.store)
    keys = sorted(key.hex() for key in ledger.committed_keys(indexed) | indexed)
    return keys if sample is None else sorted(random.sample(keys, min(sample, len(keys))))


def check_clips(ledger: Ledger, keys: Sequence[str], *, fast: bool) -> Iterator[list[Damage]]:
    """What is wrong with each clip that is broken, as it is found; progress goes to the log.

    Raises:
        StorageError: the store failed, which says nothing about the clips.
    """
    told_s, num_broken = time.monotonic(), 0
    with threads(ledger.store) as pool:
        for start in range(0, len(keys), _NUM_AT_ONCE):
            chunk = keys[start : start + _NUM_AT_ONCE]
            for damages in pool.map(lambda key: check_clip(ledger.store, key, fast=fast), chunk):
                if damages:
                    num_broken += 1
                    yield damages
            if time.monotonic() - told_s >= PROGRESS_S:
                told_s, done = time.monotonic(), start + len(chunk)
                logger.info("checked %d of %d clips, %d are broken", done, len(keys), num_broken)


def requeue(ledger: Ledger, keys: Sequence[str]) -> None:
    """Take these clips back, so that the command that rendered them renders them again."""
    store = ledger.store
    # The order is what makes a kill harmless. Out of the index first, or else a folder that has lost its
    # meta.json would be trusted to have it and never be rendered again; a clip that is only out of the index
    # is still committed. Then the meta.json: without it the rest is what a killed attempt leaves.
    drop_from_index(store, set(map(bytes.fromhex, keys)))
    with threads(store) as pool:
        for _ in pool.map(lambda key: _take_back(ledger, key), keys):
            pass


def _take_back(ledger: Ledger, key: str) -> None:
    folder = clip_folder(key)
    ledger.store.delete(f"{folder}/meta.json")
    for path in ledger.store.find(folder):
        ledger.store.delete(path)
