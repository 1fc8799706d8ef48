"""What a run has done so far: counts and gangs for the view, events for the diary, rows for the index.

One monitor per run, in the driver; any thread may tell it something. It decides nothing.
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wanray.engine.tally import ClipTotals, PoolTally, Progress
from wanray.engine.waiting import Waiting
from wanray.errors import FailureClass, StorageError
from wanray.live import PoolView, Snapshot
from wanray.plan import Recorder
from wanray.plan.profile import profile_path
from wanray.records import Record
from wanray.sinks.events import EventLog
from wanray.sinks.index import append_index, index_row
from wanray.sinks.ledger import Ledger

logger = logging.getLogger(__name__)

STORE_EVERY_S = 2.0
INDEX_AFTER_S = 60.0
"""Index rows go out in files of a minute; a killed run loses the last of them."""
LIVE_EVERY_S = 5.0
"""A snapshot of the run is stored that often, for those who watch from elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a run before it begins, for those who watch."""

    model: str = ""
    invalid: int = 0
    """Rows that became failures already."""
    estimate_s: float | None = None
    """What the plan says that the run takes."""
    tokens: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    """Width, height, number of frames -> tokens."""


class Monitor:
    """Collects the state of one run."""

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        run: str,
        pools: list[str],
        total: int,
        *,
        facts: Facts | None = None,
        stop: threading.Event | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """`total`: requests to render, so far; `stop` is set when the run is told to stop."""
        self.ledger, self.events, self.run, self.total = ledger, events, run, total
        self._facts, self._stop = facts or Facts(), stop or threading.Event()
        self._recorder = recorder
        self.committed = self.failed = 0
        self.left_to_others: Counter[str] = Counter()
        """Records that this run left alone, by why (`records.SKIPPED`)."""
        self.failed_by_class: Counter[str] = Counter()
        """With the rows that were invalid."""
        self.failed_by_class[FailureClass.INPUT] += self._facts.invalid
        self.started_s = time.monotonic()
        self._totals = ClipTotals()
        self._pools = {name: PoolTally(name) for name in pools}
        self._waiting = Waiting(pools)
        self._last_pools = pools[-2:]
        self._on_the_way: set[str] = set()
        """Keys that were sent to the last pool and have not arrived behind it."""
        self._early: set[str] = set()
        """Keys that arrived before it was known that they were sent."""
        self._index: list[dict[str, Any]] = []
        self._index_part, self._indexed_s = 0, time.monotonic()
        self._index_name = f"{self.run}-{time.time_ns():x}"
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep_stored, daemon=True)
        self._keeper.start()

    def accepted(self) -> None:
        """There is one more request to render."""
        with self._lock:
            self.total += 1

    def connected(self, num_gpus: float) -> None:
        """Workers begin to load, on so many GPUs in all."""
        self.events.emit("connected", num_gpus=num_gpus)

    def dispatched(self, pool: str, key: str, worker: int, attempt: int = 1, *, ts: float) -> None:
        """A worker of `pool` takes up `key`; `ts` is when, in Unix seconds."""
        with self._lock:
            self._pools[pool].take(key, worker, ts)
            self._waiting.taken(key)
        if self._recorder is not None:
            self._recorder.began(ts)
        self.events.emit("dispatched", ts=ts, key=key, pool=pool, worker=worker, attempt=attempt)

    def stepped(self, pool: str, worker: int, key: str, step: int, num_steps: int, *, ts: float) -> None:
        """A worker has done `step` of `num_steps` of `key`."""
        with self._lock:
            self._pools[pool].step(key, worker, step, num_steps, ts)

    def released(self, pool: str, key: str, worker: int, outcome: str, *, ts: float) -> None:
        """A worker is through with `key`: `done`, `failed`, or `lost` when the worker itself died."""
        with self._lock:
            self._pools[pool].leave(key, worker, outcome, ts)
            self._waiting.released(pool, key, outcome, ts)
            if (pool, outcome) == (self._last_pools[0], "done"):
                (self._early.discard if key in self._early else self._on_the_way.add)(key)
        self.events.emit("released", ts=ts, key=key, pool=pool, worker=worker, outcome=outcome)

    def gang_changed(self, pool: str, worker: int, state: str, detail: str, *, ts: float) -> None:
        """A gang is `idle` (detail: where its ranks are), `rebuilding` or `lost` (why)."""
        with self._lock:
            self._pools[pool].change(worker, state, ts)
        if self._recorder is not None and state == "idle":
            self._recorder.ready(pool, ts)
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

    def progress(self, key: str) -> Progress | None:
        """How far a request has come; None while no worker has it."""
        with self._lock:
            found = [pool.progress(key) for pool in self._pools.values() if key in pool.work]
        return found[-1] if found else None

    def put_off(self, record: Record) -> None:
        """A record will get another round."""
        with self._lock:
            self._waiting.ended(record.key, time.time())
        why = asdict(record.failure.tries[-1]) if record.failure else {"skipped": record.skipped}
        self.events.emit("put_off", key=record.key, **why)

    def finished(self, record: Record) -> None:
        """A record has come to its end: committed, with its failure, or left to others."""
        with self._lock:
            self._waiting.ended(record.key, time.time())
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
        request = record.request
        tokens = self._facts.tokens.get((request.width, request.height, request.num_frames), 0)
        with self._lock:
            self.committed += 1
            self._totals.add(record, tokens, time.time())
            self._index.append(index_row(record.key, record.ids, request, record.clip, record.tags))
        if self._recorder is not None:
            self._recorder.add(record)
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

    def snapshot(self) -> Snapshot:
        """The run now."""
        now_s = time.time()
        with self._lock:
            return Snapshot(
                run=self.run,
                model=self._facts.model,
                ts=now_s,
                state=self._state,
                total=self.total,
                committed=self.committed,
                failed=self.failed,
                invalid=self._facts.invalid,
                failed_by_class={
                    str(name): number for name, number in self.failed_by_class.items() if number
                },
                skipped=dict(self.left_to_others),
                elapsed_s=self.elapsed_s,
                estimate_s=self._facts.estimate_s,
                pools=tuple(self._views(now_s)),
                **self._totals.fields(now_s),
            )

    @property
    def _state(self) -> str:
        if self._closing.is_set() or self._stop.is_set():
            return "finished" if self._closing.is_set() else "stopping"
        return "rendering" if any(pool.has_gangs for pool in self._pools.values()) else "loading"

    def _views(self, now_s: float) -> Iterator[PoolView]:
        """All pools, in the order of the data flow."""
        left = self.total - self.committed - self.failed - self.left_to_others.total()
        in_work = {key for pool in self._pools.values() for key in pool.work}
        queued = self._waiting.counts(left, in_work)
        for pool in self._pools.values():
            yield pool.view(queued[pool.name], now_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started_s

    def _keep_stored(self) -> None:
        """A long quiet step must not keep in memory what happened before it."""
        shown_s = 0.0
        while not self._closing.wait(STORE_EVERY_S):
            try:
                self.events.flush()
                self._flush_index(INDEX_AFTER_S)
                if time.monotonic() - shown_s >= LIVE_EVERY_S:
                    shown_s = time.monotonic()
                    self._store_snapshot()
            except StorageError as error:
                logger.warning("events or index rows wait in memory: %s", error)

    def _store_snapshot(self) -> None:
        content = json.dumps(self.snapshot().to_json(), indent=1, ensure_ascii=False)
        self.ledger.store.write(f"runs/{self.run}/live.json", content.encode())

    def close(self) -> None:
        """Store what is still in memory."""
        self._closing.set()
        self._keeper.join()
        self._flush_index(0.0)
        self.events.flush()
        self._store_snapshot()

    def _flush_index(self, after_s: float) -> None:
        with self._lock:
            if self._index and time.monotonic() - self._indexed_s >= after_s:
                append_index(self.ledger.store, self._index_name, self._index, self._index_part)
                self._index, self._index_part, self._indexed_s = [], self._index_part + 1, time.monotonic()
                self._store_profile()

    def _store_profile(self) -> None:
        """What later plans rest on."""
        worker_s = {name: pool.busy_s / pool.done for name, pool in self._pools.items() if pool.done}
        profile = self._recorder.profile(worker_s) if self._recorder is not None else None
        if profile is not None:
            self.ledger.store.write(profile_path(self.run), profile.to_json().encode())
