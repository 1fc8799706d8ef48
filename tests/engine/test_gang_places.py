"""Gangs lie within one node wherever one has room for all their ranks, and span nodes where none has."""

import logging

import pytest

from wanray.config import RayConfig
from wanray.engine import places as places_module
from wanray.engine.cluster import connect
from wanray.engine.pipeline import PoolSpec
from wanray.engine.places import Places

pytestmark = pytest.mark.timeout(400)
SLOTS = (1, 2, 3)
"""Of three nodes; what is called a slot could be a GPU."""
CPUS = {1: 1, 2: 100, 3: 4}
"""By slots. Ray's own PACK begins where much is left of both, which is the node of two slots."""


@pytest.fixture(scope="module")
def nodes():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for slots in SLOTS:
        cluster.add_node(num_cpus=CPUS[slots], resources={"slot": slots}, labels={"slots": str(slots)})
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def placed(nodes, monkeypatch):
    """placed(*pools) -> for each gang of each pool, the slots of the nodes that hold its ranks."""
    monkeypatch.setattr(places_module, "ONE_NODE_S", 2.0)

    def run(*pools):
        with connect(RayConfig(address=nodes.address), pools):
            places = Places(pools)
            try:
                return {
                    name: [_slots_of(group) for group in groups] for name, groups in places.groups.items()
                }
            finally:
                places.close()

    return run


def _slots_of(group):
    import ray
    from ray.util.placement_group import placement_group_table

    assert group.wait(30)
    slots = {
        node["NodeID"]: int(node["Labels"]["slots"]) for node in ray.nodes() if "slots" in node["Labels"]
    }
    return sorted(slots[node] for node in placement_group_table(group)["bundles_to_node_id"].values())


def pool(name, num_gangs, world_size, **labels):
    slot = {"slot": 1.0, "CPU": 1.0}
    return PoolSpec(
        name=name, stages=(), num_workers=num_gangs, world_size=world_size, resources=slot, labels=labels
    )


def test_each_gang_has_a_node_of_its_own(placed, caplog):
    """One of three and one of two leave the smallest node, where Ray's PACK would have begun."""
    with caplog.at_level(logging.WARNING):
        found = placed(pool("denoise_low", 1, 2), pool("denoise_high", 1, 3))
    assert found == {"denoise_low": [[2, 2]], "denoise_high": [[3, 3, 3]]}
    assert "span nodes" not in caplog.text


def test_workers_do_not_take_the_room_of_gangs(placed):
    """Pools come in the order of the data flow; encoders that were placed first could be anywhere."""
    found = placed(pool("encode", 3, 1), pool("denoise", 1, 3))
    assert found["denoise"] == [[3, 3, 3]]
    assert sorted(found["encode"]) == [[1], [2], [2]]


def test_a_gang_for_which_no_node_has_room_spans_nodes(placed, caplog):
    """Three gangs of two on 1 + 2 + 3 slots: the third gets what the others leave."""
    with caplog.at_level(logging.WARNING):
        found = placed(pool("denoise", 3, 2))
    assert sorted(found["denoise"]) == [[1, 3], [2, 2], [3, 3]]
    assert caplog.text.count("pool=denoise no node has room for all 2 ranks of a gang") == 1


def test_a_gang_larger_than_any_node_spans_nodes_at_once(placed, monkeypatch):
    monkeypatch.setattr(places_module, "ONE_NODE_S", 1e9)
    (gang,) = placed(pool("denoise", 1, 5))["denoise"]
    assert len(gang) == 5
    assert len(set(gang)) >= 2


def test_labels_limit_the_nodes(placed):
    assert placed(pool("denoise", 1, 2, slots="!3")) == {"denoise": [[2, 2]]}
