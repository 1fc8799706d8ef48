"""Prompt extension on a cluster: equal prompts are sent to the endpoint once, whichever worker has them."""

import sys
from pathlib import Path

import pytest
from runs import events, metas, render, write_config, write_manifest

sys.path.insert(0, str(Path(__file__).parents[1] / "prompts"))
from stub_endpoint import StubEndpoint, completion

LONG = "A grey cat walks slowly along an old stone wall in warm evening light, low camera, shallow focus."


@pytest.mark.timeout(300)
def test_two_workers_ask_once_for_each_prompt(tmp_path, cluster, tiny):
    manifest = write_manifest(tmp_path / "m.parquet", 8, prompt="a cat")
    with StubEndpoint(completion(LONG)) as stub:
        keys = {"ray.address": cluster, "pools.extend.workers": 2, "extension.method": "chat"}
        keys |= {
            "extension.base_url": stub.base_url,
            "extension.api_key_env": "null",
            "extension.language": "en",
        }
        code, output = render(write_config(tmp_path, tiny("t2v-1.3b"), manifest, **keys))
    assert code == 0, output
    assert [seen.body["messages"][1]["content"] for seen in stub.seen] == ["a cat"]
    found = metas(tmp_path / "out").values()
    assert [meta["extended"] for meta in found] == [{"prompt": LONG}] * 8
    gangs = {event["worker"] for event in events(tmp_path / "out", "gang") if event["pool"] == "extend"}
    assert gangs == {0, 1}
