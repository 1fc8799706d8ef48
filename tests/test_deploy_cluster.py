"""The entrypoint of a RayJob, carried out on a local cluster with a node per worker group.

The config is the one of the manifest; checkpoint, manifest and output are tiny, and a node has two CPUs.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deployed import POOL_LABEL, groups, job

sys.path.insert(0, str(Path(__file__).parent / "engine"))
from runs import ENVIRONMENT, SMALL, events, metas

pytestmark = pytest.mark.timeout(400)
TEXT, SPEC = job("t2v-a14b")
POOLS = ("encode", "denoise_high", "denoise_low", "decode")
SMALLER = [f"pools.{pool}.resources={{GPU: 0, CPU: 1}}" for pool in POOLS]
SMALLER += [f"pools.{pool}.{'gangs' if 'denoise' in pool else 'workers'}=1" for pool in POOLS]


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[str, dict[str, str]]]:
    """A head and a node per worker group: (address, node id -> its label)."""
    from ray.cluster_utils import Cluster

    from wanray.engine.cluster import LOCAL_ENVIRONMENT

    os.environ.update(LOCAL_ENVIRONMENT)
    fleet = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        labels = [group["labels"] for group in groups(SPEC)]
        ids = {fleet.add_node(num_cpus=2, labels=label).node_id: label[POOL_LABEL] for label in labels}
        yield fleet.address, ids
    finally:
        fleet.shutdown()


def carry_out(folder: Path, address: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """What Ray's job supervisor does with the entrypoint; overrides follow the name of the config."""
    config = folder / "render.yaml"
    config.write_text(TEXT)
    words = shlex.join([str(config), *overrides])
    assert SPEC["entrypoint"].count("/etc/wanray/render.yaml") == 1
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | ENVIRONMENT | {"PATH": path, "RAY_ADDRESS": address}
    entrypoint = SPEC["entrypoint"].replace("/etc/wanray/render.yaml", words)
    return subprocess.run(
        entrypoint, shell=True, env=environment, capture_output=True, text=True, timeout=340, check=False
    )


def test_each_pool_renders_on_the_nodes_of_its_group(nodes, tiny, tmp_path):
    address, labels = nodes
    rows = [{"id": f"r{index}", "prompt": f"a cat {index}", "seed": index, **SMALL} for index in range(3)]
    rows.append(rows[0] | {"id": "wrong", "num_frames": 6})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    done = carry_out(
        tmp_path,
        address,
        f"manifest={tmp_path}/prompts.parquet",
        f"output.url={tmp_path}/out",
        f"model.path={tiny('t2v-a14b')}",
        "numerics.dtype=float32",
        *SMALLER,
    )
    assert done.returncode == 0, done.stdout + done.stderr  # 2, for the wrong row, counts as done
    assert "3 clips committed" in done.stdout
    assert len(metas(tmp_path / "out")) == 3
    assert len([*tmp_path.glob("out/failures/*.json")]) == 1
    places = {
        item["pool"]: item["detail"].partition(":")[0]
        for item in events(tmp_path / "out", "gang")
        if item["state"] == "idle"
    }
    found = {
        pool: [label for node, label in labels.items() if node.startswith(place)]
        for pool, place in places.items()
    }
    assert found == {pool: [pool.replace("_", "-")] for pool in POOLS}


def test_wrong_use_and_a_cluster_too_small_are_failures(nodes, tiny, tmp_path):
    address, _ = nodes
    wrong = carry_out(tmp_path, address, "pools.denoise_high.gang=1")
    assert wrong.returncode != 0
    assert "did you mean pools.denoise_high.gangs?" in wrong.stderr
    pq.write_table(pa.table({"prompt": ["a cat"]}), tmp_path / "prompts.parquet")
    manifest = f"manifest={tmp_path}/prompts.parquet"
    places = [f"output.url={tmp_path}/out", f"model.path={tiny('t2v-a14b')}", manifest]
    small = carry_out(tmp_path, address, *places)
    assert small.returncode != 0
    assert "needs" in small.stderr
    assert "fit" in small.stderr
