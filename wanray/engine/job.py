"""A planned job carried out: render, commit, record failures, summarise."""

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq

from wanray.engine.local import open_local
from wanray.engine.monitor import Monitor
from wanray.engine.prepare import Job
from wanray.engine.progress import show_progress
from wanray.engine.rounds import Rounds, Run
from wanray.engine.signals import on_sigterm
from wanray.errors import EngineError, ExitCode, FailureClass, ManifestError, StorageError
from wanray.records import CLAIMED, COMMITTED, Failure, Record
from wanray.sinks.cache import own_cache, trim
from wanray.sinks.claims import heartbeat
from wanray.sinks.events import EventLog
from wanray.stage import load
from wanray.storage import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How a run ended; also `runs/<run>/summary.json`."""

    run: str
    committed: int
    failed: int
    invalid: int
    skipped: int
    """Committed before this run, or by another meanwhile."""
    failed_before: int
    """Left alone, because they failed in an earlier run (`--retry-failed`)."""
    failed_by_class: dict[str, int]
    seconds: float
    exit_code: int
    error: str = ""
    """What ended the run early."""


def execute(job: Job) -> Summary:
    """Render what the plan says. Failures of rows are recorded; only the engine's own end the run.

    Raises:
        EngineError, StorageError: the run could not be finished; the same command resumes it.
        ManifestError: `on_invalid: fail`, and there are invalid rows.
    """
    plan, counts = job.plan, job.plan.counts
    if counts.invalid and job.config.on_invalid == "fail":
        first = plan.problems[0]
        raise ManifestError(
            f"{counts.invalid} of {counts.rows} rows are invalid and on_invalid is fail: {first}"
        )
    events = EventLog(job.ledger.store, plan.run)
    monitor = Monitor(job.ledger, events, plan.run, [pool.name for pool in plan.pools], counts.left)
    try:
        events.emit("run_started", run=plan.run, counts=asdict(counts))
        _record_invalid(job)
        if counts.left:
            _run_engine(job, monitor)
            _trim_cache(job)
        return _finish(job, monitor)
    except (EngineError, StorageError) as error:
        _finish(job, monitor, str(error))
        raise
    finally:
        monitor.close()


def _finish(job: Job, monitor: Monitor, error: str = "") -> Summary:
    """Store the summary; after an error as far as the store lets us, since that error is what counts."""
    summary = _summarise(job, monitor, error)
    monitor.events.emit("run_finished", **asdict(summary))
    content = json.dumps(asdict(summary), indent=1).encode()
    try:
        job.ledger.store.write(f"runs/{job.plan.run}/summary.json", content)
    except StorageError:
        if not error:
            raise
    return summary


def _record_invalid(job: Job) -> None:
    """Write a failure record for every invalid row."""

    def write(row: dict[str, Any]) -> None:
        failure = Failure(stage="plan", failure_class=FailureClass.INPUT, message=row["message"])
        job.ledger.write_failure(row["key"], [row["id"]], failure, job.plan.run, None)

    with ThreadPoolExecutor(16) as threads:
        for batch in job.invalid.to_batches(max_chunksize=1000):
            list(threads.map(write, batch.to_pylist()))


def _run_engine(job: Job, monitor: Monitor) -> None:
    stop, rounds = threading.Event(), Rounds(monitor, job.config.faults)
    with show_progress(monitor), _opened(job, monitor, stop) as run:
        parts = list(job.plan.parts)
        while parts and not stop.is_set():
            run(parts, rounds.finish)
            parts = [] if stop.is_set() else rounds.next_parts(job.ledger.store)
    _check_all_came_back(monitor, stop)


def _trim_cache(job: Job) -> None:
    """Keep the cache within its bounds; that this fails is no harm to the run."""
    cache = job.config.cache
    if cache.max_gib is None:
        return
    try:
        trim(Store.open(cache.url or own_cache(job.config.output.url)), int(cache.max_gib * 2**30))
    except StorageError as error:
        logger.warning("the cache could not be trimmed to cache.max_gib=%g: %s", cache.max_gib, error)


def _check_all_came_back(monitor: Monitor, stop: threading.Event) -> None:
    others = monitor.left_to_others
    left = monitor.total - monitor.committed - monitor.failed - others[COMMITTED]
    if not left:
        return
    again = f"{left} of {monitor.total} requests are left: the same command resumes"
    if stop.is_set():
        raise EngineError(f"stopped by SIGTERM; {again}")
    if others[CLAIMED] == left:
        raise EngineError(
            f"{left} of {monitor.total} requests are held by other runs (claim): ask again later"
        )
    raise EngineError(again)


@contextmanager
def _opened(job: Job, monitor: Monitor, stop: threading.Event) -> Iterator[Run]:
    """The engine that the config names, its workers ready; SIGTERM sets `stop`."""
    with heartbeat(job.ledger.store, job.plan.run, job.config.faults.claim_expires_s):
        if job.config.engine == "local":
            with on_sigterm(stop), open_local(job.pools, monitor, _has_gpu(), stop) as run_records:
                yield lambda parts, finish: run_records(_records(job.ledger.store, parts), finish)
            return
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")  # read when Ray Data is imported
        from wanray.engine.cluster import connect
        from wanray.engine.stream import open_stream

        with connect(job.config.ray, job.pools) as cluster:
            with on_sigterm(stop):  # after Ray, which has a handler of its own
                with open_stream(job.pools, job.ledger.store, monitor, cluster, job.config, stop) as run:
                    yield run


def _has_gpu() -> bool:
    """Whether torch sees a GPU. Only the local engine may ask: it is about to import torch anyway."""
    return load("torch.cuda:is_available")()


def _records(store: Store, parts: Sequence[str]) -> Iterator[Record]:
    """The records of plan files."""
    for part in parts:
        table = pq.read_table(BytesIO(store.read(part)))
        for row in range(table.num_rows):
            yield Record.from_table(table.slice(row, 1))


def _summarise(job: Job, monitor: Monitor, error: str) -> Summary:
    counts = job.plan.counts
    failed_by_class = monitor.failed_by_class.copy()
    failed_by_class[FailureClass.INPUT] += counts.invalid
    has_failures = failed_by_class.total() or counts.failed_before
    exit_code = ExitCode.FAILURES if has_failures else ExitCode.DONE
    return Summary(
        run=job.plan.run,
        committed=monitor.committed,
        failed=monitor.failed,
        invalid=counts.invalid,
        skipped=counts.committed + monitor.left_to_others[COMMITTED],
        failed_before=counts.failed_before,
        failed_by_class={str(name): number for name, number in failed_by_class.items() if number},
        seconds=round(monitor.elapsed_s, 3),
        exit_code=ExitCode.INFRASTRUCTURE if error else exit_code,
        error=error,
    )
