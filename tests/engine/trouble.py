"""A run of stages that only wait, in which some requests are trouble for a pool.

Started by test_faults with (address, folder).
"""

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.efficiency import plan_file
from benchmarks.sleep import Sleep, SleepConfig
from wanray.config import FaultsConfig, ModelConfig, OutputConfig, RayConfig, RenderConfig
from wanray.engine.cluster import connect
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec
from wanray.engine.rounds import Rounds
from wanray.engine.stream import open_stream
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.stage import StageSpec
from wanray.storage import Store

ROWS = 8
POOLS = ("encode", "denoise", "decode")
TROUBLE = {
    1: ("encode", "dies"),
    2: ("denoise", "dies"),
    3: ("decode", "dies"),
    4: ("decode", "needs too much memory"),
    5: ("denoise", "hangs once"),
}
"""Seed of a request -> the pool to which it is trouble, and which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TroubledConfig(SleepConfig):
    """marker: a file that says that it has hung once."""

    marker: str


class Troubled(Sleep):
    """A stage that comes to harm by some requests."""

    def run(self, record, report):
        pool, trouble = TROUBLE.get(record.request.seed, ("", ""))
        if pool == self.config.name:
            self.suffer(trouble)
        return super().run(record, report)

    def suffer(self, trouble):
        if trouble == "dies":
            os._exit(1)
        if trouble == "needs too much memory":
            raise MemoryError("no room")
        if not Path(self.config.marker).exists():
            Path(self.config.marker).touch()
            time.sleep(1000)


def make_pool(name, folder):
    config = TroubledConfig(name=name, seconds=0.05, last=name == "decode", marker=f"{folder}/has-hung")
    stage = StageSpec(name=name, target="trouble:Troubled", config=config)
    seats = 3 if name == "encode" else 1
    return PoolSpec(name=name, stages=(stage,), num_workers=2, concurrency=seats, finishes=name == "decode")


def main(address, folder):
    pools = [make_pool(name, folder) for name in POOLS]
    store = Store.open(folder)
    store.write("plan/part-0.parquet", plan_file(ROWS))
    monitor = Monitor(Ledger(store), EventLog(store, "run"), "run", list(POOLS), ROWS)
    faults = FaultsConfig(max_attempts=3, max_rounds=0, stall_s=15)
    config = RenderConfig(
        manifest="-",
        output=OutputConfig(url=folder),
        model=ModelConfig(path=""),
        faults=faults,
        ray=RayConfig(address=address),
    )
    rounds = Rounds(monitor, faults)
    with connect(config.ray, pools) as cluster:
        with open_stream(pools, store, monitor, cluster, config, threading.Event()) as run:
            run(["plan/part-0.parquet"], rounds.finish)
    monitor.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
