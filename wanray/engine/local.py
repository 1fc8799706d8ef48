"""The engine without Ray: the same stages in this process, in threads of each pool, so that they overlap."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec, resources_of, worker_for
from wanray.engine.rounds import Finish
from wanray.engine.visits import outcome_of_visit
from wanray.engine.work import Chain, outcome_of
from wanray.errors import ConfigError, EngineError
from wanray.records import STOPPED, Record

RunRecords = Callable[[Iterator[Record], Finish], None]
"""`run(records, finish)`: `finish` gets each record that left the last stage."""

QUEUED_RECORDS = 2
"""Between two pools: enough to overlap, few enough to stay in memory."""
POLL_S = 0.5


class _Pipe:
    """A bounded queue that ends when all who fill it have, or gives up when another thread has failed."""

    def __init__(self, stop: threading.Event, num_writers: int, size: int) -> None:
        self._queue: queue.Queue[Record | None] = queue.Queue(size)
        self._stop = stop
        self._lock, self._num_writers = threading.Lock(), num_writers

    def end(self) -> None:
        """One writer has no more records."""
        with self._lock:
            self._num_writers -= 1
            is_last = not self._num_writers
        if is_last:
            self.put(None)

    def more(self, most: int) -> list[Record]:
        """Up to `most` records that are there already."""
        records: list[Record] = []
        with suppress(queue.Empty):
            while len(records) < most and (record := self._queue.get_nowait()) is not None:
                records.append(record)
            if len(records) < most:
                self.put(None)  # that was the end, which others shall see too
        return records

    def put(self, record: Record | None) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(record, timeout=POLL_S)
                return

    def __iter__(self) -> Iterator[Record]:
        while not self._stop.is_set():
            try:
                record = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if record is None:
                self.put(None)  # for those who read beside us
                return
            yield record


@contextmanager
def open_local(
    pools: Sequence[PoolSpec], monitor: Monitor, has_gpus: bool, stop: threading.Event
) -> Iterator[RunRecords]:
    """Set up all stages and yield what runs records through them, as often as it is called.

    Told to stop, it takes up no more records; one that is being denoised stores its state.

    Raises:
        EngineError: a stage could not be set up.
    """
    chains = [Chain(pool.stages) for pool in pools]
    try:
        for pool, chain in zip(pools, chains, strict=True):
            _set_up(pool, chain, has_gpus)
        yield lambda records, finish: _stream(_Line(pools, chains, monitor, finish, stop), records)
    finally:
        for chain in chains:
            chain.close()


@dataclass(frozen=True, slots=True)
class _Line:
    """What the threads of one stream share."""

    pools: Sequence[PoolSpec]
    chains: Sequence[Chain]
    monitor: Monitor
    finish: Finish
    stop: threading.Event


def _stream(line: _Line, records: Iterator[Record]) -> None:
    """One thread feeds the records, `concurrency` work for each pool."""
    broken = threading.Event()
    writers = [1, *(pool.concurrency for pool in line.pools)]
    sizes = [max(QUEUED_RECORDS, pool.in_a_row - 1) for pool in line.pools]
    pipes = [_Pipe(broken, number, size) for number, size in zip(writers, sizes, strict=False)]
    with ThreadPoolExecutor(sum(writers)) as threads:
        jobs = [threads.submit(_feed, records, pipes[0], line.stop)]
        for index, pool in enumerate(line.pools):
            target = pipes[index + 1] if index + 1 < len(line.pools) else None
            jobs += [
                threads.submit(_pump, line, index, pipes[index], target) for _ in range(pool.concurrency)
            ]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            broken.set()
    for job in jobs:
        job.result()


def _set_up(pool: PoolSpec, chain: Chain, has_gpus: bool) -> None:
    try:
        chain.setup(worker_for(resources_of(pool, has_gpus)))
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(f"pool {pool.name} cannot start: {type(error).__name__}: {error}") from error


def _feed(records: Iterator[Record], target: _Pipe, stop: threading.Event) -> None:
    for record in records:
        if stop.is_set():
            break
        target.put(record)
    target.end()


def _pump(line: _Line, index: int, source: _Pipe, target: _Pipe | None) -> None:
    """Some records at a time through all visits, so that what is swapped between two is swapped for all."""
    pool = line.pools[index]
    for record in source:
        records = [record, *source.more(pool.in_a_row - 1)]
        for visit in range(pool.visits - 1):
            records = [_work(line, index, item, visit) if item.is_open else item for item in records]
        for item in records:
            result = _work(line, index, item, pool.visits - 1) if item.is_open else item
            if target is None:
                line.finish(result)
            else:
                target.put(result)
    if target is not None:
        target.end()


def _work(line: _Line, index: int, record: Record, visit: int) -> Record:
    pool, monitor, key = line.pools[index], line.monitor, record.key
    if line.stop.is_set() and not pool.finishes:
        return record.skip(STOPPED)

    def report(step: int, total: int) -> bool:
        monitor.stepped(pool.name, 0, key, step, total, ts=time.time())
        return line.stop.is_set()

    monitor.dispatched(pool.name, key, 0, ts=time.time())
    record = line.chains[index].run(record, report)
    outcome = outcome_of_visit(outcome_of(record), visit, pool.visits)
    monitor.released(pool.name, key, 0, outcome, ts=time.time())
    return record
