"""How soon a run goes on after a rank or a whole node was killed, read off its events."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.stage import load

ROWS = 12
SHAPE = {"width": 64, "height": 48, "num_frames": 5, "steps": 400}
PATIENCE_S = 300.0


def recovery_after_rank() -> dict[str, float]:
    """Seconds from the death of a busy rank to each stage of recovery."""
    with tempfile.TemporaryDirectory() as folder, _running(Path(folder), {}) as out:
        busy = _busy_gang(out)
        killed_s = time.time()
        os.kill(int(busy["detail"].rpartition(":")[2]), signal.SIGKILL)
        return _recovery(out, killed_s, busy["worker"], "rank killed")


def recovery_after_node() -> dict[str, float]:
    """Seconds from the death of a node with a busy gang, where another node has room for it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    nodes = {}
    for _ in range(3):
        node = cluster.add_node(num_cpus=1, resources={"gang": 1})
        nodes[node.node_id] = node
    keys = {"ray.address": cluster.address, "pools.denoise.resources": "{gang: 1}"}
    try:
        with tempfile.TemporaryDirectory() as folder, _running(Path(folder), keys) as out:
            busy = _busy_gang(out)
            node = next(nodes[name] for name in nodes if name.startswith(busy["detail"].split(":")[0]))
            killed_s = time.time()
            cluster.remove_node(node, allow_graceful=False)
            return _recovery(out, killed_s, busy["worker"], "node killed")
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def _running(folder: Path, keys: dict[str, str]) -> Iterator[Path]:
    """`wanray render` with two gangs, as far as its first clip; yields its output, and ends with it."""
    rows = [{"id": f"r{row}", "prompt": "a cat", "seed": row, **SHAPE} for row in range(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    load("wanray.models.tiny:write_tiny")("t2v-1.3b", folder / "model")
    (folder / "config.yaml").write_text(f"manifest: {folder}/m.parquet\nmodel: {{path: {folder}/model}}\n")
    keys = {"output.url": f"{folder}/out", "numerics.dtype": "float32", "pools.denoise.gangs": "2"} | keys
    command = [str(Path(sys.executable).with_name("wanray")), "render", str(folder / "config.yaml")]
    process = subprocess.Popen(
        [*command, *(f"{key}={value}" for key, value in keys.items())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(lambda: _events(folder / "out", "committed"))
        yield folder / "out"
    finally:
        process.kill()
        process.wait()


def _recovery(out: Path, killed_s: float, worker: int, what: str) -> dict[str, float]:
    def after(name: str, **fields: Any) -> float:
        def found() -> list[dict[str, Any]]:
            return [
                event
                for event in _events(out, name)
                if event["ts"] > killed_s and fields.items() <= event.items()
            ]

        _wait_for(found)
        return found()[0]["ts"] - killed_s

    lost_s = after("released", pool="denoise", worker=worker, outcome="lost")
    (lost,) = [event for event in _events(out, "released") if event["outcome"] == "lost"]
    return {
        f"{what}: noticed": lost_s,
        f"{what}: its request is in work again": after("dispatched", pool="denoise", key=lost["key"]),
        f"{what}: its gang works again": after("gang", pool="denoise", worker=worker, state="idle"),
    }


def _busy_gang(out: Path) -> dict[str, Any]:
    """The latest `idle` event of the gang that took up a request last: where its rank is."""
    taken = [event for event in _events(out, "dispatched") if event["pool"] == "denoise"][-1]
    gangs = [event for event in _events(out, "gang") if event["pool"] == "denoise"]
    return [event for event in gangs if (event["worker"], event["state"]) == (taken["worker"], "idle")][-1]


def _events(out: Path, name: str) -> list[dict[str, Any]]:
    paths = sorted(out.glob("runs/*/events/*.jsonl"))
    events = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return sorted((event for event in events if event["event"] == name), key=lambda event: event["ts"])


def _wait_for(condition: Any) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the run did not come so far")
        time.sleep(0.2)
