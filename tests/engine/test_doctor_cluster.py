"""A cluster of unlike nodes: pools go where their labels say, and the doctor looks at each node."""

import json
import os
import signal

import pytest

from benchmarks.seaweed import CREDENTIALS
from wanray.config import RayConfig
from wanray.engine.cluster import connect
from wanray.engine.examine import Question, examine
from wanray.engine.labels import takes
from wanray.engine.pipeline import PoolSpec
from wanray.engine.places import Places
from wanray.errors import ConfigError, EngineError

pytestmark = pytest.mark.timeout(400)
TYPE = "ray.io/accelerator-type"


@pytest.fixture(scope="module")
def nodes(s3_endpoint):
    """A head, and two machines with other accelerators; Ray labels those itself where they are real."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # the nodes have credentials, as nodes must
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": s3_endpoint}).items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        cluster.add_node(num_cpus=1, labels={TYPE: "H100", "market": "spot"})
        cluster.add_node(num_cpus=1, labels={TYPE: "A100"})
    yield cluster
    cluster.shutdown()


def pool(**labels):
    return PoolSpec(name="denoise", stages=(), labels=labels, resources={"CPU": 1.0})


def labels_of_places(places):
    """The accelerators of the nodes where a pool's gangs were placed."""
    import ray
    from ray.util.placement_group import placement_group_table

    by_id = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
    for group in places.groups["denoise"]:
        assert group.wait(30)
    tables = [placement_group_table(group) for group in places.groups["denoise"]]
    return [by_id[node].get(TYPE) for table in tables for node in table["bundles_to_node_id"].values()]


@pytest.mark.parametrize(
    ("labels", "accelerator"),
    [
        ({TYPE: "H100"}, "H100"),
        ({TYPE: "in(A100, L40S)"}, "A100"),
        ({TYPE: "!in(H100, A100)"}, None),
        ({TYPE: "!H100", "market": "!spot"}, "not H100"),
        ({"market": "spot"}, "H100"),
    ],
)
def test_what_fits_is_placed_where_we_thought(nodes, labels, accelerator):
    import ray

    wanted = pool(**labels)
    with connect(RayConfig(address=nodes.address), [wanted]):
        places = Places([wanted])
        (placed,) = labels_of_places(places)
        places.close()
        qualified = {node["Labels"].get(TYPE) for node in ray.nodes() if takes(labels, node["Labels"])}
    assert placed in qualified
    assert qualified == ({"A100", None} if accelerator == "not H100" else {accelerator})


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ({TYPE: "H200"}, EngineError, f"0 of 3 nodes qualify .*of all nodes {TYPE} is A100 or H100 or none"),
        ({"market": "in(spot"}, ConfigError, r"pools\.denoise\.labels\.market must be a value"),
    ],
)
def test_what_does_not_fit_is_told(nodes, labels, error, words):
    with pytest.raises(error, match=words):
        with connect(RayConfig(address=nodes.address), [pool(**labels)]):
            pass


def test_addresses_that_are_not_for_drivers(monkeypatch):
    with pytest.raises(ConfigError, match=r"ray\.address must be host:port .*wanray submit"):
        with connect(RayConfig(address="ray://127.0.0.1:10001"), []):
            pass
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ConfigError, match="RAY_ADDRESS must be host:port"):
        with connect(RayConfig(), []):
            pass


def doctor(run_cli, nodes, *arguments):
    """(exit code, reports) of the doctor of this cluster."""
    code, out, err = run_cli("doctor", "--cluster", "--address", nodes.address, "--json", *arguments)
    return code, json.loads(out or "[]"), err


def test_a_healthy_cluster(nodes, run_cli, tiny, s3_url):
    code, reports, err = doctor(run_cli, nodes, "--output", s3_url, tiny("t2v-1.3b"))
    assert (code, [report["problems"] for report in reports]) == (0, [[], [], []]), err
    assert [report["labels"].get(TYPE) for report in reports[:1]] == [None], "the driver's node is the first"
    assert {report["answer"]["checkpoint_files"] for report in reports} == {
        reports[0]["answer"]["checkpoint_files"]
    }
    for report in reports:
        answer = report["answer"]
        assert abs(report["clock_ahead_s"]) <= report["clock_within_s"] + 0.05
        assert answer["machine"]["torch"]
        assert answer["machine"]["gpus"] == []
        assert {"h264", "h265"} <= set(answer["codecs"])
        assert min(answer["write_mb_per_s"], answer["read_mb_per_s"]) > 1
        assert answer["memory_free_gib"] > 0.1


def test_a_sick_node_holds_up_nobody(nodes, run_cli, tmp_path):
    sick = min(nodes.worker_nodes, key=lambda node: node.node_id)
    (raylet,) = sick.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGSTOP)
    try:
        code, reports, _ = doctor(run_cli, nodes, "--timeout-s=12", "--output", tmp_path, "/nowhere/wan")
    finally:
        os.kill(raylet.process.pid, signal.SIGCONT)
    assert code == 1
    by_id = {report["id"]: report["problems"] for report in reports}
    assert any("gave no answer within 12 s" in text for text in by_id.pop(sick.node_id))
    assert len(by_id) == 2


def test_gpus_that_are_promised_and_not_there(nodes, run_cli):
    node = nodes.add_node(num_cpus=1, num_gpus=2)
    code, out, _ = run_cli("doctor", "--cluster", "--address", nodes.address)
    nodes.remove_node(node)
    assert code == 1
    assert "Ray offers 2 GPUs and torch (without CUDA) sees 0" in out
    assert "not usable: 1 of 4 nodes has problems" in out


def test_a_node_finds_what_is_wrong_with_output_and_checkpoint(tmp_path):
    found = examine(Question(output_url=str(tmp_path), marker="work/absent", checkpoint=str(tmp_path)))
    assert any("another folder here" in text for text in found.problems)
    assert any(text.startswith("checkpoint: ") for text in found.problems)
    assert found.write_mb_per_s is None


def test_without_anything_to_look_at(run_cli):
    code, _, err = run_cli("doctor")
    assert (code, "needs a checkpoint to look at, or --cluster" in err) == (1, True)
