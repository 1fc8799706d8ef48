"""What an endpoint takes over from the queue of an output: what nobody works at, and what it can render."""

import pytest

from wanray.config import make_config
from wanray.engine.endpoint.orphans import Orphans
from wanray.engine.endpoint.reception import Reception
from wanray.engine.ground import lay_ground
from wanray.sinks.backlog import Accepted, Backlog
from wanray.sinks.claims import heartbeat

CHAT = {"method": "chat", "base_url": "http://127.0.0.1:1", "api_key_env": None}
ROW = {"prompt": "a cat", "width": 64, "height": 48, "num_frames": 5}


@pytest.fixture
def ground(tiny, tmp_path):
    """ground(name, **values): of an endpoint into one output; `values` of its config, `run` among them."""

    def make(name="t2v-1.3b", **values):
        own = {"model": {"path": str(tiny(name))}, "output": {"url": str(tmp_path / "out")}}
        return lay_ground(make_config(own | values, "test", needs_manifest=False), keeps=True)

    return make


def promise(ground, seed, run):
    """A request that the run has accepted by the rules of `ground`; its key."""
    record, priority = Reception(ground.resolver, False).accept(ROW | {"seed": seed, "priority": seed})
    Backlog(ground.ledger.store).put(Accepted(record, priority, run))
    return record.key


def adopted(ground, known=()):
    return {item.record.key: item for item in Orphans(ground).adopted(lambda key: key in known)}


def test_what_nobody_works_at_is_taken_over_and_ours_from_then_on(ground):
    ours = ground(run="new")
    keys = [promise(ours, 1, "new"), promise(ours, 2, "gone"), promise(ours, 3, "alive")]
    with heartbeat(ours.ledger.store, "new", 60), heartbeat(ours.ledger.store, "alive", 60):
        found = adopted(ours)
        assert found.keys() == set(keys[:2])
        assert [found[key].priority for key in keys[:2]] == [1, 2]
        backlog = Backlog(ours.ledger.store)
        assert [(backlog.get(key) or found[keys[0]]).run for key in keys] == ["new", "new", "alive"]
        assert adopted(ours, known=keys[:1]).keys() == {keys[1]}
    with heartbeat(ours.ledger.store, "new", 60):
        assert adopted(ours).keys() == set(keys)


@pytest.mark.parametrize(
    "others",
    [
        {"name": "t2v-a14b"},
        {"numerics": {"dtype": "float32"}},
        {"extension": CHAT},
    ],
    ids=["weights", "numerics", "extension"],
)
def test_what_would_be_other_pixels_is_left_alone(ground, others):
    ours, other = ground(run="new"), ground(**others)
    key = promise(other, 1, "gone")
    assert adopted(ours) == {}
    assert Backlog(ours.ledger.store).accepted_keys() == [key]
    assert adopted(ground(**others, run="again")).keys() == {key}


def test_other_ways_to_extend_are_told_apart(ground):
    key = promise(ground(extension=CHAT), 1, "gone")
    assert adopted(ground(extension=CHAT | {"seed": 7}, run="new")) == {}
    assert adopted(ground(extension=CHAT, run="new")).keys() == {key}
