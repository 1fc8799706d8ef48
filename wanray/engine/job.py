"""A planned job carried out: render, commit, record failures, summarise."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq

from wanray.engine.local import run_local
from wanray.engine.monitor import Monitor
from wanray.engine.prepare import Job
from wanray.engine.progress import show_progress
from wanray.errors import EngineError, ExitCode, FailureClass, ManifestError, StorageError
from wanray.records import Failure, Record
from wanray.sinks.events import EventLog
from wanray.stage import load


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How a run ended; also `runs/<run>/summary.json`."""

    run: str
    committed: int
    failed: int
    invalid: int
    skipped: int
    """Committed before this run."""
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
    with show_progress(monitor):
        if job.config.engine == "local":
            run_local(job.pools, _plan_records(job), monitor, _has_gpu())
        else:
            _run_ray(job, monitor)
    lost = monitor.total - monitor.committed - monitor.failed
    if lost:
        raise EngineError(
            f"{lost} of {monitor.total} requests did not come back: the same command resumes them"
        )


def _run_ray(job: Job, monitor: Monitor) -> None:
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")  # read when Ray Data is imported
    from wanray.engine.cluster import connect
    from wanray.engine.stream import run_ray

    with connect(job.config.ray, job.pools) as cluster:
        run_ray(job.pools, job.ledger.store, job.plan.parts, monitor, cluster, job.config.ray)


def _has_gpu() -> bool:
    """Whether torch sees a GPU. Only the local engine may ask: it is about to import torch anyway."""
    return load("torch.cuda:is_available")()


def _plan_records(job: Job) -> Iterator[Record]:
    for part in job.plan.parts:
        table = pq.read_table(BytesIO(job.ledger.store.read(part)))
        for batch in table.to_batches(max_chunksize=64):
            yield from map(Record.from_plan, batch.to_pylist())


def _summarise(job: Job, monitor: Monitor, error: str) -> Summary:
    counts = job.plan.counts
    failed_by_class = monitor.failed_by_class.copy()
    failed_by_class[FailureClass.INPUT] += counts.invalid
    exit_code = ExitCode.FAILURES if failed_by_class.total() else ExitCode.DONE
    return Summary(
        run=job.plan.run,
        committed=monitor.committed,
        failed=monitor.failed,
        invalid=counts.invalid,
        skipped=counts.committed,
        failed_by_class={str(name): number for name, number in failed_by_class.items() if number},
        seconds=round(monitor.elapsed_s, 3),
        exit_code=ExitCode.INFRASTRUCTURE if error else exit_code,
        error=error,
    )
