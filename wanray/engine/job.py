"""From a config to a finished run: prepare (plan, nothing started), then execute (render, summarise)."""

import json
import logging
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from wanray.checkpoint import Checkpoint, open_checkpoint, weights_digest
from wanray.config import RenderConfig
from wanray.engine.local import run_local
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec, make_pools, numerics_json
from wanray.engine.progress import show_progress
from wanray.errors import FailureClass, ManifestError
from wanray.manifest import Resolver, read_batches, resolve
from wanray.plan import Plan, choose_pools, select_requests
from wanray.plan.build import Selection
from wanray.plan.pools import check_pools, choose_placement, pool_experts, shape_groups
from wanray.records import Failure, Record
from wanray.registry import DIFFUSERS_DEFAULTS
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.storage import Store

logger = logging.getLogger(__name__)

EXIT_DONE, EXIT_USAGE, EXIT_FAILURES, EXIT_INFRASTRUCTURE = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A planned run: everything decided, nothing started."""

    config: RenderConfig
    checkpoint: Checkpoint
    plan: Plan
    invalid: pa.Table
    """`wanray.plan.build.INVALID_SCHEMA`."""
    ledger: Ledger


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


def prepare(config: RenderConfig, *, write: bool) -> Job:
    """Plan the job. With `write`, the output is checked and config and plan files are stored under `runs/`.

    Raises:
        ConfigError, ManifestError: wrong use.
        StorageError: the output cannot be used.
    """
    checkpoint = open_checkpoint(config.model.path, config.model.name)
    placement = choose_placement(config, checkpoint.model)
    notes = check_pools(config, placement, checkpoint.dims, list(pool_experts(placement, checkpoint.model)))
    store = Store.open(config.output.url)
    if write and not store.check():
        notes.append(f"{store.url} ignores create-if-absent: two jobs at once may commit a clip twice")
    ledger, run = Ledger(store), config.run or _new_run()
    model = {"name": checkpoint.model.name, "digest": weights_digest(checkpoint)}
    selection = _select(config, checkpoint, model, ledger, run, write)
    mode = config.numerics.mode
    groups = shape_groups(selection.costs, checkpoint.model, checkpoint.dims, checkpoint.switch(mode), mode)
    plan = Plan(
        run=run,
        model=model,
        numerics=numerics_json(config.numerics),
        placement=placement,
        counts=selection.counts,
        groups=groups,
        pools=choose_pools(config, checkpoint.model, placement, groups),
        parts=tuple(f"runs/{run}/plan/{name}" for name in selection.parts),
        problems=tuple(selection.problems),
        notes=tuple(notes),
        assumptions=asdict(config.estimate),
    )
    if write:
        store.write(f"runs/{run}/config.yaml", yaml.safe_dump(asdict(config), sort_keys=False).encode())
    return Job(config=config, checkpoint=checkpoint, plan=plan, invalid=selection.invalid, ledger=ledger)


def _new_run() -> str:
    """A name that sorts by time and that two jobs started at once do not share."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _select(
    config: RenderConfig, checkpoint: Checkpoint, model: dict[str, str], ledger: Ledger, run: str, write: bool
) -> Selection:
    official = checkpoint.model.defaults
    if config.numerics.mode == "diffusers":
        official = replace(DIFFUSERS_DEFAULTS, shift=checkpoint.flow_shift)
    resolver = Resolver(
        model=checkpoint.model,
        model_json=model,
        numerics=numerics_json(config.numerics),
        official=official,
        defaults=config.defaults,
        sweep=config.sweep,
    )

    def write_part(name: str, data: bytes) -> None:
        if write:
            ledger.store.write(f"runs/{run}/plan/{name}", data)

    resolved = resolve(read_batches(config.manifest), resolver)
    return select_requests(resolved, ledger.committed_keys(), write_part)


def execute(job: Job) -> Summary:
    """Render what the plan says. Failures of rows are recorded; only the engine's own end the run.

    Raises:
        EngineError, StorageError: the run could not be finished; the same command resumes it.
        ManifestError: `on_invalid: fail`, and there are invalid rows.
    """
    plan, counts = job.plan, job.plan.counts
    if counts.invalid and job.config.on_invalid == "fail":
        raise ManifestError(
            f"{counts.invalid} of {counts.rows} rows are invalid and on_invalid is fail: {plan.problems[0]}"
        )
    with _open_monitor(job) as monitor:
        monitor.events.emit("run_started", run=plan.run, counts=asdict(counts))
        _record_invalid(job)
        if counts.left:
            _run_engine(job, monitor)
        summary = _summarise(job, monitor)
        monitor.events.emit("run_finished", **asdict(summary))
    job.ledger.store.write(f"runs/{plan.run}/summary.json", json.dumps(asdict(summary), indent=1).encode())
    return summary


@contextmanager
def _open_monitor(job: Job) -> Iterator[Monitor]:
    events = EventLog(job.ledger.store, job.plan.run)
    pools = [pool.name for pool in job.plan.pools]
    monitor = Monitor(job.ledger, events, job.plan.run, pools, job.plan.counts.left)
    try:
        yield monitor
    finally:
        monitor.close()


def _record_invalid(job: Job) -> None:
    """Write a failure record for every invalid row."""

    def write(row: dict[str, Any]) -> None:
        failure = Failure(stage="plan", failure_class=FailureClass.INPUT, message=row["message"])
        job.ledger.write_failure(row["key"], [row["id"]], failure, job.plan.run, None)

    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(write, job.invalid.to_pylist()):
            pass


def _run_engine(job: Job, monitor: Monitor) -> None:
    pools = make_pools(job.config, job.checkpoint, job.plan.model, job.plan.placement, job.plan.run)
    with show_progress(monitor):
        if job.config.engine == "local":
            run_local(pools, _plan_records(job), monitor, _local_resources())
        else:
            _run_ray(job, pools, monitor)


def _run_ray(job: Job, pools: tuple[PoolSpec, ...], monitor: Monitor) -> None:
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")  # read when Ray Data is imported
    from wanray.engine.cluster import connect
    from wanray.engine.stream import run_ray

    with connect(job.config.ray, pools) as cluster:
        run_ray(pools, job.ledger.store, job.plan.parts, monitor, cluster, job.config.ray)


def _local_resources() -> dict[str, float]:
    """One GPU if torch sees one. Only the local engine may ask: it is about to import torch anyway."""
    from wanray.stage import load

    return {"GPU": 1} if load("torch.cuda:is_available")() else {"CPU": 1}


def _plan_records(job: Job) -> Iterator[Record]:
    for part in job.plan.parts:
        table = pq.read_table(BytesIO(job.ledger.store.read(part)))
        for batch in table.to_batches(max_chunksize=64):
            yield from map(Record.from_plan, batch.to_pylist())


def _summarise(job: Job, monitor: Monitor) -> Summary:
    counts = job.plan.counts
    failed = monitor.failed + counts.invalid
    return Summary(
        run=job.plan.run,
        committed=monitor.committed,
        failed=monitor.failed,
        invalid=counts.invalid,
        skipped=counts.committed,
        failed_by_class=_by_class(monitor, counts.invalid),
        seconds=round(monitor.elapsed_s, 3),
        exit_code=EXIT_FAILURES if failed else EXIT_DONE,
    )


def _by_class(monitor: Monitor, invalid: int) -> dict[str, int]:
    counts = monitor.failed_by_class.copy()
    counts[FailureClass.INPUT] += invalid
    return {str(name): number for name, number in counts.items() if number}
