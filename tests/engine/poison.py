"""A run in which one request kills every rank that takes it. Started by test_ray with (address, folder)."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.efficiency import plan_file
from benchmarks.sleep import Sleep, SleepConfig
from wanray.config import RayConfig
from wanray.engine.cluster import connect
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec
from wanray.engine.stream import run_ray
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.stage import StageSpec
from wanray.storage import Store

POISON_SEED = 2
ROWS = 6
POOLS = ("encode", "denoise", "decode")


class Poisoned(Sleep):
    """Dies of one request, whoever renders it."""

    def run(self, record, report):
        if record.request.seed == POISON_SEED and self.config.name == "denoise":
            os._exit(1)
        return super().run(record, report)


def main(address, folder):
    pools = []
    for name in POOLS:
        config = SleepConfig(name=name, seconds=0.05, last=name == "decode")
        stage = StageSpec(name=name, target="poison:Poisoned", config=config)
        gang = name == "denoise"
        pools.append(PoolSpec(name=name, stages=(stage,), is_gang=gang, num_workers=2 if gang else 1))
    store = Store.open(folder)
    store.write("plan/part-0.parquet", plan_file(ROWS))
    monitor = Monitor(Ledger(store), EventLog(store, "run"), "run", list(POOLS), ROWS)
    config = RayConfig(address=address, max_attempts=3)
    with connect(config, pools) as cluster:
        run_ray(pools, store, ["plan/part-0.parquet"], monitor, cluster, config)
    monitor.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
