"""The engine without Ray: the same stages in this process, one thread per pool, so that they overlap."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress

from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec, resources_of, worker_for
from wanray.engine.work import Chain
from wanray.errors import ConfigError, EngineError
from wanray.records import Record

QUEUED_RECORDS = 2
"""Between two pools: enough to overlap, few enough to stay in memory."""
POLL_S = 0.5


class _Pipe:
    """A bounded queue that ends, or gives up when another thread has failed."""

    def __init__(self, stop: threading.Event) -> None:
        self._queue: queue.Queue[Record | None] = queue.Queue(QUEUED_RECORDS)
        self._stop = stop

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
                return
            yield record


def run_local(pools: Sequence[PoolSpec], records: Iterator[Record], monitor: Monitor, has_gpus: bool) -> None:
    """Run all records through the pools; returns when all are finished.

    Raises:
        EngineError: a stage could not be set up.
    """
    chains = [Chain(pool.stages) for pool in pools]
    try:
        for pool, chain in zip(pools, chains, strict=True):
            _set_up(pool, chain, has_gpus)
        _stream(pools, chains, records, monitor)
    finally:
        for chain in chains:
            chain.close()


def _stream(
    pools: Sequence[PoolSpec], chains: Sequence[Chain], records: Iterator[Record], monitor: Monitor
) -> None:
    """One thread feeds the records, one works for each pool."""
    stop = threading.Event()
    pipes = [_Pipe(stop) for _ in pools]
    with ThreadPoolExecutor(len(pools) + 1) as threads:
        jobs = [threads.submit(_feed, records, pipes[0])]
        for index, (pool, chain) in enumerate(zip(pools, chains, strict=True)):
            target = pipes[index + 1] if index + 1 < len(pools) else None
            jobs.append(threads.submit(_pump, pool.name, chain, pipes[index], target, monitor))
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for job in jobs:
        job.result()


def _set_up(pool: PoolSpec, chain: Chain, has_gpus: bool) -> None:
    try:
        chain.setup(worker_for(resources_of(pool, has_gpus)))
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(f"pool {pool.name} cannot start: {type(error).__name__}: {error}") from error


def _feed(records: Iterator[Record], target: _Pipe) -> None:
    for record in records:
        target.put(record)
    target.put(None)


def _pump(name: str, chain: Chain, source: _Pipe, target: _Pipe | None, monitor: Monitor) -> None:
    for record in source:
        result = _work(name, chain, record, monitor) if record.failure is None else record
        if target is None:
            monitor.finished(result)
        else:
            target.put(result)
    if target is not None:
        target.put(None)


def _work(name: str, chain: Chain, record: Record, monitor: Monitor) -> Record:
    key = record.key
    monitor.dispatched(name, key, 0, ts=time.time())
    record = chain.run(record, lambda step, total: monitor.stepped(name, 0, key, step, total, ts=time.time()))
    monitor.released(name, key, 0, "done" if record.failure is None else "failed", ts=time.time())
    return record
