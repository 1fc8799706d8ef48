"""What a run has done so far: counts and gangs for the view, events for the diary, rows for the index.

One monitor per run, in the driver; any thread may tell it something. It decides nothing.
"""

import logging
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wanray.errors import StorageError
from wanray.records import Record
from wanray.sinks.events import EventLog
from wanray.sinks.index import append_index, index_row
from wanray.sinks.ledger import Ledger

logger = logging.getLogger(__name__)

STORE_EVERY_S = 2.0
INDEX_AFTER_S = 60.0
"""Index rows go out in files of a minute; a killed run loses the last of them."""


@dataclass(frozen=True, slots=True)
class GangView:
    """One gang at one moment."""

    state: str
    key: str = ""
    step: int = 0
    num_steps: int = 0


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool at one moment; queued counts what waits in front of it."""

    name: str
    done: int = 0
    active: int = 0
    queued: int = 0
    failed: int = 0
    gangs: tuple[GangView, ...] = ()


@dataclass(slots=True)
class _Pool:
    done: int = 0
    failed: int = 0
    gangs: dict[int, GangView] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    """Key -> the worker that has it."""

    def take(self, key: str, worker: int) -> None:
        self.work[key] = worker
        self.gangs[worker] = GangView("busy", key)

    def leave(self, key: str, worker: int, outcome: str) -> None:
        self.done += outcome == "done"
        self.work.pop(key, None)
        others = [other for other, place in self.work.items() if place == worker]
        if outcome == "lost" or not others:
            self.gangs[worker] = GangView("rebuilding" if outcome == "lost" else "idle")
        elif self.gangs[worker].key == key:
            self.gangs[worker] = GangView("busy", others[0])

    def change(self, worker: int, state: str) -> None:
        self.gangs[worker] = GangView(state)
        self.work = {key: place for key, place in self.work.items() if place != worker}


class Monitor:
    """Collects the state of one run."""

    def __init__(self, ledger: Ledger, events: EventLog, run: str, pools: list[str], total: int) -> None:
        self.ledger, self.events, self.run, self.total = ledger, events, run, total
        self.committed = self.failed = 0
        self.left_to_others: Counter[str] = Counter()
        """Records that this run left alone, by why (`records.SKIPPED`)."""
        self.failed_by_class: Counter[str] = Counter()
        self.started_s = time.monotonic()
        self._pools = {name: _Pool() for name in pools}
        self._last_pools = pools[-2:]
        self._on_the_way: set[str] = set()
        """Keys that were sent to the last pool and have not arrived behind it."""
        self._early: set[str] = set()
        """Keys that arrived before it was known that they were sent."""
        self._index: list[dict[str, Any]] = []
        self._index_part, self._indexed_s = 0, time.monotonic()
        self._index_name = f"{run}-{time.time_ns():x}"
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep_stored, daemon=True)
        self._keeper.start()

    def dispatched(self, pool: str, key: str, worker: int, attempt: int = 1, *, ts: float) -> None:
        """A worker of `pool` takes up `key`; `ts` is when, in Unix seconds."""
        with self._lock:
            self._pools[pool].take(key, worker)
        self.events.emit("dispatched", ts=ts, key=key, pool=pool, worker=worker, attempt=attempt)

    def stepped(self, pool: str, worker: int, key: str, step: int, num_steps: int, *, ts: float) -> None:
        """A worker has done `step` of `num_steps` of `key`."""
        with self._lock:
            self._pools[pool].gangs[worker] = GangView("busy", key, step, num_steps)

    def released(self, pool: str, key: str, worker: int, outcome: str, *, ts: float) -> None:
        """A worker is through with `key`: `done`, `failed`, or `lost` when the worker itself died."""
        with self._lock:
            self._pools[pool].leave(key, worker, outcome)
            if (pool, outcome) == (self._last_pools[0], "done"):
                (self._early.discard if key in self._early else self._on_the_way.add)(key)
        self.events.emit("released", ts=ts, key=key, pool=pool, worker=worker, outcome=outcome)

    def gang_changed(self, pool: str, worker: int, state: str, detail: str, *, ts: float) -> None:
        """A gang is `idle` (detail: where its ranks are), `rebuilding` or `lost` (why)."""
        with self._lock:
            self._pools[pool].change(worker, state)
        self.events.emit("gang", ts=ts, pool=pool, worker=worker, state=state, detail=detail)

    def arrived(self, record: Record) -> None:
        """A record has left the last stage, whatever became of it."""
        was_there = record.failure is not None and record.failure.stage == self._last_pools[-1]
        if record.clip is None and not was_there:
            return
        with self._lock:
            known = record.key in self._on_the_way
            (self._on_the_way.discard if known else self._early.add)(record.key)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is in work, and nothing on its way into the last stage."""
        with self._lock:
            return not self._on_the_way and not any(pool.work for pool in self._pools.values())

    def put_off(self, record: Record) -> None:
        """A record will get another round."""
        why = asdict(record.failure.tries[-1]) if record.failure else {"skipped": record.skipped}
        self.events.emit("put_off", key=record.key, **why)

    def finished(self, record: Record) -> None:
        """A record has come to its end: committed, with its failure, or left to others."""
        if record.skipped:
            with self._lock:
                self.left_to_others[record.skipped] += 1
            self.events.emit("skipped", key=record.key, why=record.skipped)
        elif record.failure is None:
            self._committed(record)
        else:
            self._failed(record)

    def _committed(self, record: Record) -> None:
        assert record.clip is not None, f"record {record.key} ended with neither clip nor failure"
        with self._lock:
            self.committed += 1
            self._index.append(index_row(record.key, record.ids, record.request, record.clip, record.tags))
        timings_s = {stage: round(seconds, 3) for stage, seconds in record.timings_s.items()}
        self.events.emit("committed", key=record.key, video=record.clip.path, timings_s=timings_s)

    def _failed(self, record: Record) -> None:
        failure = record.failure
        assert failure is not None
        with self._lock:
            self.failed += 1
            self.failed_by_class[failure.failure_class] += 1
            if failure.stage in self._pools:
                self._pools[failure.stage].failed += 1
        self.ledger.write_failure(record.key, record.ids, failure, self.run, record.request.to_json())
        self.events.emit("failed", key=record.key, attempts=failure.attempts, **asdict(failure))

    def views(self) -> list[PoolView]:
        """All pools, in the order of the data flow."""
        with self._lock:
            left, views = self.total, []
            for name, pool in self._pools.items():
                gangs = tuple(pool.gangs[worker] for worker in sorted(pool.gangs))
                views.append(PoolView(name, pool.done, len(pool.work), 0, pool.failed, gangs))
                views[-1] = replace(views[-1], queued=max(0, left - pool.done - len(pool.work) - pool.failed))
                left = pool.done
            return views

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started_s

    def _keep_stored(self) -> None:
        """A long quiet step must not keep in memory what happened before it."""
        while not self._closing.wait(STORE_EVERY_S):
            try:
                self.events.flush()
                self._flush_index(INDEX_AFTER_S)
            except StorageError as error:
                logger.warning("events or index rows wait in memory: %s", error)

    def close(self) -> None:
        """Store what is still in memory."""
        self._closing.set()
        self._keeper.join()
        self._flush_index(0.0)
        self.events.flush()

    def _flush_index(self, after_s: float) -> None:
        with self._lock:
            if self._index and time.monotonic() - self._indexed_s >= after_s:
                append_index(self.ledger.store, self._index_name, self._index, self._index_part)
                self._index, self._index_part, self._indexed_s = [], self._index_part + 1, time.monotonic()
