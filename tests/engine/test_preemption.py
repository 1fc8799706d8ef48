"""A node that is told to go while a gang is at work there: the clip moves on with its state."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import events, latents_of, metas, render, start, wait_until, write_config, write_manifest

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def nodes():
    """A head without room for gangs, and two nodes with room for one each: (address, node id -> node)."""
    from ray.cluster_utils import Cluster

    fleet = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    added = [fleet.add_node(num_cpus=1, resources={"gang": 1}) for _ in range(2)]
    yield fleet.address, {node.node_id: node for node in added}
    fleet.shutdown()


def drain(address, node):
    """What an autoscaler does whose cloud takes a machine back."""
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={address}"]
    command += [f"--node-id={node.node_id}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message=spot", "--deadline-remaining-seconds=120"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def terminate(address, node):
    """What shutting the machine down does; Ray then leaves its workers no time to store anything."""
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGTERM)


def place_of_the_gang(out):
    """The first letters of the id of the node where the gang was when it was last heard of."""
    return _idle_gangs(out)[-1]["detail"].partition(":")[0]


def _idle_gangs(out):
    return [item for item in events(out, "gang") if (item["pool"], item["state"]) == ("denoise", "idle")]


@pytest.mark.parametrize(
    ("go", "has_notice"), [(drain, True), pytest.param(terminate, False, marks=pytest.mark.slow)]
)
def test_a_clip_moves_to_another_node_with_its_state(go, has_notice, nodes, tmp_path, tiny):
    address, by_id = nodes
    manifest = write_manifest(tmp_path / "m.parquet", 1, steps=500, num_frames=21)
    for name in ("calm", "disturbed"):
        (tmp_path / name).mkdir()
    keys = {"output.save_latents": True}
    calm = write_config(tmp_path / "calm", tiny("t2v-1.3b"), manifest, **keys, engine="local")
    assert render(calm)[0] == 0
    keys |= {"ray.address": address, "pools.denoise.resources": "{gang: 1}"}
    keys |= {"denoise.checkpoint_every_steps": 50}
    process = start(write_config(tmp_path / "disturbed", tiny("t2v-1.3b"), manifest, **keys))
    out = tmp_path / "disturbed/out"
    wait_until(lambda: list(out.glob("work/*/state-*")) and _idle_gangs(out), process)
    node = next(by_id[name] for name in by_id if name.startswith(place_of_the_gang(out)))
    go(address, node)
    assert process.wait(timeout=240) == 0
    ((key, meta),) = metas(out).items()
    assert [item["cause"] for item in meta["failed_tries"]] == ["preempted"]
    assert not node.node_id.startswith(place_of_the_gang(out))
    (note,) = [note for note in meta["notes"] if "went on" in note]
    assert (int(note.split()[4].rstrip(",")) % 50 > 0) is has_notice, note
    assert torch.equal(latents_of(tmp_path / "calm/out")[key], latents_of(out)[key])
