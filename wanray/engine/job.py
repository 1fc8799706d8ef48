"""A planned job carried out: render, commit, record failures, summarise."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq

from wanray.engine.local import open_local
from wanray.engine.monitor import Facts, Monitor
from wanray.engine.prepare import Job
from wanray.engine.rounds import Rounds, Run
from wanray.engine.signals import on_sigterm
from wanray.engine.summary import Summary, conclude
from wanray.errors import EngineError, ExitCode, FailureClass, ManifestError, StorageError
from wanray.live import Snapshot
from wanray.plan import Plan, Recorder
from wanray.records import CLAIMED, COMMITTED, Failure, Record
from wanray.sinks.cache import cache_url, trim
from wanray.sinks.claims import heartbeat
from wanray.sinks.events import EventLog
from wanray.stage import load
from wanray.storage import Store

logger = logging.getLogger(__name__)


Show = Callable[[Callable[[], Snapshot]], AbstractContextManager[None]]
"""`show(look)`: shows what `look()` returns until the block ends."""


def execute(job: Job, show: Show = lambda look: nullcontext()) -> Summary:
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
    stop, pools = threading.Event(), [pool.name for pool in plan.pools]
    monitor = Monitor(
        job.ledger,
        events,
        plan.run,
        pools,
        counts.left,
        facts=_facts(plan),
        stop=stop,
        recorder=_recorder(job),
    )
    try:
        events.emit("run_started", run=plan.run, counts=asdict(counts), pools=pools)
        _record_invalid(job)
        if counts.left:
            with _quiet(job.config.engine), show(monitor.snapshot):
                _run_engine(job, monitor, stop)
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
    try:
        conclude(monitor, summary)
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


def _quiet(engine: str) -> AbstractContextManager[None]:
    """Keeps what Ray says out of what is shown, so it must be entered before."""
    if engine == "local":
        return nullcontext()
    from wanray.engine.noise import tamed

    return tamed()


def _facts(plan: Plan) -> Facts:
    return Facts(
        model=plan.model["name"],
        invalid=plan.counts.invalid,
        estimate_s=(plan.estimate.start_s + plan.estimate_s) or None,
        tokens={(group.width, group.height, group.num_frames): group.tokens for group in plan.groups},
    )


def _recorder(job: Job) -> Recorder:
    stages = {pool.name: [stage.name for stage in pool.stages] for pool in job.pools}
    return Recorder(job.plan, stages, job.work.requests_per_text if job.work is not None else 1.0)


def _run_engine(job: Job, monitor: Monitor, stop: threading.Event) -> None:
    rounds = Rounds(monitor, job.config.faults)
    with _opened(job, monitor, stop) as run:
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
        trim(Store.open(cache_url(cache.url, job.config.output.url)), int(cache.max_gib * 2**30))
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
            has_gpu = _has_gpu()
            monitor.connected(float(has_gpu))
            with on_sigterm(stop), open_local(job.pools, monitor, has_gpu, stop) as run_records:
                yield lambda parts, finish: run_records(_records(job.ledger.store, parts), finish)
            return
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")  # read when Ray Data is imported
        from wanray.engine.cluster import connect
        from wanray.engine.metrics import exported
        from wanray.engine.stream import open_stream

        with connect(job.config.ray, job.pools) as cluster, exported(monitor.snapshot):
            monitor.connected(cluster.num_gpus(job.pools))
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
    has_failures = monitor.failed_by_class.total() or counts.failed_before
    exit_code = ExitCode.FAILURES if has_failures else ExitCode.DONE
    return replace(
        Summary.of(monitor),
        invalid=counts.invalid,
        skipped=counts.committed + monitor.left_to_others[COMMITTED],
        failed_before=counts.failed_before,
        exit_code=ExitCode.INFRASTRUCTURE if error else exit_code,
        error=error,
    )
