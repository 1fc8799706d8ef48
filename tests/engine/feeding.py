"""Runs of stages that only wait, which say how well the workers of encode feed a gang.

Started by test_feeding with (address, folder); writes `found.json` there.
"""

import json
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.efficiency import Collect, plan_file
from benchmarks.sleep import SleepConfig
from wanray.config import ModelConfig, OutputConfig, RayConfig, RenderConfig
from wanray.engine.cluster import connect
from wanray.engine.pipeline import PoolSpec
from wanray.engine.stream import open_stream
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.stage import StageSpec
from wanray.storage import Store

ENCODE_S, DENOISE_S = 1.2, 0.4
ROWS = 24
LOADING_ROWS = 40
ROWS_AHEAD = 5


def pool(name, num_workers=1, **config):
    sleep = SleepConfig(name=name, last=name == "decode", **config)
    stage = StageSpec(name=name, target="benchmarks.sleep:Sleep", config=sleep)
    return PoolSpec(name=name, stages=(stage,), num_workers=num_workers, finishes=name == "decode")


def spans(address, folder, pools, rows, rows_ahead=None):
    """Of each finished record, by pool: when its work began and ended."""
    store = Store.open(f"{folder}/{len(list(Path(folder).iterdir()))}")
    store.write("plan/part-0.parquet", plan_file(rows))
    monitor = Collect(Ledger(store), EventLog(store, "run"), "run", [pool.name for pool in pools], rows)
    config = RenderConfig(
        manifest="-",
        output=OutputConfig(url=folder),
        model=ModelConfig(path=""),
        ray=RayConfig(address=address, rows_ahead=rows_ahead),
    )
    with connect(config.ray, pools) as cluster:
        with open_stream(pools, store, monitor, cluster, config, threading.Event()) as run:
            run(["plan/part-0.parquet"], monitor.finished)
    monitor.close()
    return [record.topology for record in monitor.records]


def busy_share(address, folder, num_encoders):
    """Share of the time from its first start to its last end in which the gang works."""
    pools = [pool("encode", num_encoders, seconds=ENCODE_S), pool("denoise", seconds=DENOISE_S)]
    pools.append(pool("decode", seconds=0.0))
    work = [record["denoise"] for record in spans(address, folder, pools, ROWS)]
    whole_s = max(end for _, end in work) - min(start for start, _ in work)
    return sum(end - start for start, end in work) / whole_s


def encoded_while_loading(address, folder):
    """Records that were encoded before a gang that takes long to load began to denoise."""
    pools = [pool("encode", seconds=0.0), pool("denoise", seconds=0.05, setup_s=15.0)]
    pools.append(pool("decode", seconds=0.0))
    records = spans(address, folder, pools, LOADING_ROWS, ROWS_AHEAD)
    began = min(record["denoise"][0] for record in records)
    return sum(record["encode"][1] < began for record in records)


def main(address, folder):
    shares = {workers: busy_share(address, folder, workers) for workers in (1, 2, 3, 4)}
    found = {"busy": shares, "encoded": encoded_while_loading(address, folder)}
    Path(folder, "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
