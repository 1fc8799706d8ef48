"""Runs of stages that only wait, beside what the plan says of them.

Started by test_estimate with (address, folder); writes `found.json` there: name -> estimated and measured
seconds from the first request's start to the last one's end, and which share of it each pool is busy. One
stream serves all cases: how long a stage sleeps depends on the number of frames.
"""

import json
import sys
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.efficiency import Collect
from benchmarks.sleep import SleepConfig
from wanray.config import ModelConfig, OutputConfig, PoolConfig, PoolsConfig, RayConfig, RenderConfig
from wanray.engine.cluster import connect
from wanray.engine.pipeline import PoolSpec
from wanray.engine.stream import open_stream
from wanray.plan import Work, make_estimate
from wanray.plan.pools import shape_groups
from wanray.plan.profile import Measured, Profile
from wanray.records import PLAN_SCHEMA, Request
from wanray.registry import MODELS, Guidance
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger
from wanray.stage import StageSpec
from wanray.storage import Store

SHAPE = {"width": 64, "height": 64, "steps": 10}
SHIFT = 5.0
MODEL = MODELS["t2v-a14b"]
WORKERS = {"encode": 1, "denoise_high": 5, "denoise_low": 3, "decode": 1}
EXPERTS = {"denoise_high": ("high",), "denoise_low": ("low",)}
HIGH, ENCODE, LOW = 5, 9, 13
"""Frames of requests whose bottleneck is the pool of that name."""
SECONDS = {
    "encode": {HIGH: 0.4, ENCODE: 1.2, LOW: 0.35},
    "denoise_high": {HIGH: 6.0, ENCODE: 4.0, LOW: 4.0},
    "denoise_low": {HIGH: 3.23, ENCODE: 2.0, LOW: 3.6},
    "decode": {HIGH: 0.45, ENCODE: 0.4, LOW: 0.45},
}
"""HIGH: the published 1041.5 s of an A14B at 720p on an H100, 26 of 40 steps by the high expert, over 113."""
CASES = {
    "eight H100, t2v-a14b at 720p": [HIGH] * 25,
    "encoders are too few": [ENCODE] * 16,
    "experts out of balance": [LOW] * 20,
    "two shapes, two bottlenecks": [ENCODE] * 10 + [HIGH] * 12,
}
"""Name -> frames of the requests, in their order."""
MOST_TRIES, CLOSE_ENOUGH = 3, 1.04
"""Other work on the machine only lengthens a run, so the shortest of a few counts."""


def pool_config(name):
    number = WORKERS[name]
    return PoolConfig(gangs=number) if name in EXPERTS else PoolConfig(workers=number)


def config_of(address, folder):
    return RenderConfig(
        manifest="-",
        output=OutputConfig(url=folder),
        model=ModelConfig(path=""),
        ray=RayConfig(address=address),
        pools=PoolsConfig(**{name: pool_config(name) for name in WORKERS}),
    )


def estimated(config, frames):
    """Seconds and busy shares that the plan says, from a profile that holds just the times of the sleeps."""
    costs = {}
    for number in frames:
        key = (64, 64, number, SHAPE["steps"], SHIFT, "unipc", True)
        costs[key] = costs.get(key, 0) + 1
    groups = shape_groups(costs, MODEL, MODEL.dims, MODEL.boundary, "official")
    measured = tuple(measured_of(name, group) for name in WORKERS for group in groups)
    work = Work(
        model=MODEL,
        dims=MODEL.dims,
        groups=groups,
        text_bytes=np.full(len(frames), 100),
        num_encoder_weights=0,
        expert_bytes=0,
        vae_channels=96,
        wants_gpu=frozenset(),
        profile=Profile(
            run="sleeps", model=MODEL.name, dtype="bfloat16", num_clips=1, start_s=0.0, measured=measured
        ),
    )
    found = make_estimate(config, work, "split")
    whole_s = found.estimate.whole_s
    return whole_s, {pool.name: pool.busy_s / whole_s for pool in found.pools}


def measured_of(stage, group):
    shape = {"width": group.width, "height": group.height, "num_frames": group.num_frames}
    experts, seconds = EXPERTS.get(stage, ()), SECONDS[stage][group.num_frames]
    gang = {"num_steps": group.steps_of(experts), "guided": True, "tflop": group.tflop_of(experts)}
    times = {"count": 1, "mean_s": seconds, "median_s": seconds}
    return Measured(stage=stage, **shape, **times, **(gang if experts else {}))


def plan_file(frames):
    rows = []
    for number, num_frames in enumerate(frames):
        shape = SHAPE | {"num_frames": num_frames}
        request = Request(
            task="t2v", prompt=f"p {number}", negative_prompt="", fps=16.0, seed=number, shift=SHIFT,
            guidance=Guidance(high=5.0, low=5.0), solver="unipc", **shape,
        )  # fmt: skip
        shared = {"ids": [str(number)], "priority": 0, "tags": "{}", "sources": "{}"}
        rows.append({"key": f"{number:064x}", "request": request.to_json(), **shared, **shape})
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), sink)
    return sink.getvalue()


def pool_spec(name):
    sleep = SleepConfig(name=name, seconds=0.0, by_frames=SECONDS[name], last=name == "decode")
    stage = StageSpec(name=name, target="benchmarks.sleep:Sleep", config=sleep)
    return PoolSpec(
        name=name,
        stages=(stage,),
        num_workers=WORKERS[name],
        finishes=name == "decode",
        resources={"CPU": 0.2},
    )


def measure(run, monitor, frames):
    """Seconds from the first start to the last end, and busy shares; what was rendered before is left out."""
    before = len(getattr(monitor, "records", []))
    monitor.ledger.store.write("plan/part.parquet", plan_file(frames))
    run(["plan/part.parquet"], monitor.finished)
    spans = [record.topology for record in monitor.records[before:]]
    ends, starts = zip(*[(end, start) for pools in spans for start, end in pools.values()], strict=True)
    whole_s = max(ends) - min(starts)
    busy_s = {name: sum(pools[name][1] - pools[name][0] for pools in spans) for name in WORKERS}
    return whole_s, {name: seconds / WORKERS[name] / whole_s for name, seconds in busy_s.items()}


def compared(run, monitor, frames, config):
    """Estimated and measured seconds and shares."""
    (estimated_s, promised), tries = estimated(config, frames), []
    while len(tries) < MOST_TRIES and min(tries, default=(9e9,))[0] > estimated_s * CLOSE_ENOUGH:
        tries.append(measure(run, monitor, frames))
    measured_s, busy = min(tries, key=lambda tried: tried[0])
    return {
        "estimated_s": estimated_s,
        "measured_s": measured_s,
        "tries": len(tries),
        "promised": promised,
        "busy": busy,
    }


def main(address, folder):
    config, store, found = config_of(address, folder), Store.open(folder), {}
    specs = [pool_spec(name) for name in WORKERS]
    monitor = Collect(Ledger(store), EventLog(store, "run"), "run", list(WORKERS), 10**6)
    with connect(config.ray, specs) as cluster:
        with open_stream(specs, store, monitor, cluster, config, threading.Event()) as run:
            measure(run, monitor, [HIGH] * 6)  # until every pool is at work
            for name, frames in CASES.items():
                found[name] = compared(run, monitor, frames, config)
                Path(folder, "found.json").write_text(json.dumps(found))
    monitor.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
