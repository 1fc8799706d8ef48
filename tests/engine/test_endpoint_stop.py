"""An endpoint that is told to stop, and the one that goes on after it, with what it may and nothing else."""

import json

import pytest
from serving import LONG, SMALL, Server, meta_of, metas

from wanray.config import make_config
from wanray.engine.endpoint.reception import Reception
from wanray.engine.ground import lay_ground
from wanray.sinks.backlog import Accepted, Backlog
from wanray.storage import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_stopped_endpoint_goes_on_where_it_was(tiny, tmp_path):
    row = {"prompt": "a very long one", "seed": 1, "steps": LONG, "num_frames": 41}
    server = Server(tmp_path, tiny("ti2v-5b"), tmp_path / "out")
    server.start()
    try:
        server.wait_ready()
        key = server.accepted(**row)
        server.wait_for_step(key, 20)
        waiting = server.accepted(prompt="a short one", seed=1)
        assert server.terminate() == 0, server.log.read_text()
        store = Store.open(str(tmp_path / "out"))
        assert store.find("queue") == sorted(f"queue/{name}.parquet" for name in (key, waiting))
        assert any("state-" in path for path in store.find(f"work/{key}"))
        assert [json.loads(store.read(path))["exit_code"] for path in summaries(store)] == [0]
        foreign = others_promises(tiny, tmp_path / "out")
        server.start()
        server.wait_ready()
        open_keys = {view["id"] for view in server.call("GET").json()["data"]}
        assert open_keys <= {key, waiting}, "what others have promised is not ours to render"
        for name in (key, waiting):
            server.wait_for(name, "completed", seconds=300)
        assert sorted(metas(store)) == sorted([key, waiting])
        assert [note for note in meta_of(store, key)["notes"] if note.startswith("went on from step")]
        assert store.find(f"work/{key}") == []
        assert store.find("queue") == sorted(f"queue/{name}.parquet" for name in foreign)
        assert store.find("failures") == []
        assert server.terminate() == 0
        assert len(summaries(store)) == 2
    finally:
        server.end()


def others_promises(tiny, out):
    """Keys that endpoints of other weights, numerics and prompts have left in the queue of an output."""
    chat = {"method": "chat", "base_url": "http://127.0.0.1:1", "api_key_env": None}
    own = {"model": {"path": str(tiny("ti2v-5b"))}, "numerics": {"dtype": "float32"}}
    configs = [
        own | {"model": {"path": str(tiny("t2v-1.3b"))}},
        own | {"numerics": {"dtype": "bfloat16"}},
        own | {"extension": chat},
    ]
    keys = []
    for values in configs:
        config = make_config(values | {"output": {"url": str(out)}}, "test", needs_manifest=False)
        ground = lay_ground(config, keeps=True)
        record, priority = Reception(ground.resolver, False).accept(SMALL | {"prompt": "a stray", "seed": 1})
        Backlog(ground.ledger.store).put(Accepted(record, priority, "long-gone"))
        keys.append(record.key)
    return keys


def summaries(store):
    return [path for path in store.find("runs") if path.endswith("/summary.json")]
