"""(a) How close a stream of four stages comes to the ideal time when its stages only sleep."""

import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.sleep import SleepConfig
from wanray.config import ModelConfig, OutputConfig, RayConfig, RenderConfig
from wanray.engine.cluster import connect
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec
from wanray.engine.stream import open_stream
from wanray.records import PLAN_SCHEMA, Record, Request
from wanray.registry import Guidance
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.stage import StageSpec
from wanray.storage import Store

STAGES = ("encode", "denoise_high", "denoise_low", "decode")
ROWS = 64


def make_pools(seconds: float) -> list[PoolSpec]:
    """Four pools of one gang of one, all sleeping `seconds` per record."""
    pools = []
    for name in STAGES:
        config = SleepConfig(name=name, seconds=seconds, last=name == "decode")
        stage = StageSpec(name=name, target="benchmarks.sleep:Sleep", config=config)
        pools.append(PoolSpec(name=name, stages=(stage,), finishes=name == "decode"))
    return pools


def plan_file(rows: int) -> bytes:
    """A plan of `rows` requests that differ in their seed."""
    shape: dict[str, Any] = {"width": 64, "height": 64, "num_frames": 5, "steps": 2}
    guidance = Guidance(high=1.0, low=1.0)
    table = [
        {
            "key": f"{row:064x}",
            "ids": [str(row)],
            "priority": 0,
            **shape,
            "request": Request(
                task="t2v", prompt="p", negative_prompt="", fps=16.0, seed=row, shift=5.0, guidance=guidance,
                solver="unipc", **shape,
            ).to_json(),
            "tags": "{}",
            "sources": "{}",
        }
        for row in range(rows)
    ]  # fmt: skip
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(table, schema=PLAN_SCHEMA), sink)
    return sink.getvalue()


class Collect(Monitor):
    """Keeps the finished records."""

    def finished(self, record: Record) -> None:
        self.records = [*getattr(self, "records", []), record]
        super().finished(record)


def measure(seconds: float, rows: int = ROWS) -> dict[str, float]:
    """Steady time from the first start to the last end, against `(rows + stages - 1) * seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        store.write("plan/part-0.parquet", plan_file(rows))
        monitor = Collect(Ledger(store), EventLog(store, "bench"), "bench", list(STAGES), rows)
        pools = make_pools(seconds)
        config = RenderConfig(manifest="-", output=OutputConfig(url=folder), model=ModelConfig(path=""))
        with connect(RayConfig(), pools) as cluster:
            with open_stream(pools, store, monitor, cluster, config, threading.Event()) as run_parts:
                run_parts(["plan/part-0.parquet"], monitor.finished)
        monitor.close()
    assert monitor.committed == rows, f"{monitor.committed} of {rows} records came through"
    spans = [span for record in monitor.records for span in record.topology.values()]
    steady_s = max(end for _, end in spans) - min(start for start, _ in spans)
    ideal_s = (rows + len(STAGES) - 1) * seconds
    return {
        "stage_s": seconds,
        "rows": rows,
        "ideal_s": ideal_s,
        "steady_s": steady_s,
        "efficiency": ideal_s / steady_s,
        "whole_s": monitor.elapsed_s,
    }


def run() -> list[dict[str, float]]:
    """Both stage lengths of the claim, each in a process of its own, as a job is."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        return list(processes.map(measure, (1.0, 0.2)))
