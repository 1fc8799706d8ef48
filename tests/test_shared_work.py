"""What requests share is made once: a thousand rows of ten prompts, two runs that share one cache at once."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent / "prompts"))
from stub_endpoint import StubEndpoint, completion

from benchmarks.sleep import SleepConfig
from wanray.config import load_config
from wanray.engine.job import execute
from wanray.engine.prepare import prepare
from wanray.models.text import TextEncoder
from wanray.stage import StageSpec

SMALL = {"width": 64, "height": 48, "num_frames": 5, "steps": 1}


class Echo(StubEndpoint):
    """Answers with the prompt and more words, after a moment; counts how many it has at once."""

    pause_s = 0.0

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.counting = threading.Lock()

    def next_answer(self, seen):
        super().next_answer(seen)
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.pause_s)
        with self.counting:
            self.now -= 1
        return completion(
            f"{seen.body['messages'][1]['content']} walks slowly along a wall in evening light."
        )


@pytest.fixture
def echo():
    with Echo() as server:
        yield server


@pytest.fixture
def encoded(monkeypatch):
    """All texts that any encoder of this process encodes."""
    texts, compute = [], TextEncoder.encode_all
    monkeypatch.setattr(
        TextEncoder, "encode_all", lambda self, asked: texts.extend(asked) or compute(self, asked)
    )
    return texts


@pytest.fixture
def written(tmp_path, tiny, echo):
    """written(rows, **keys) -> a config file for these rows."""

    def write(rows, **keys):
        pq.write_table(pa.Table.from_pylist([SMALL | row for row in rows]), tmp_path / "m.parquet")
        config = {"manifest": tmp_path / "m.parquet", "model.path": tiny("t2v-1.3b")}
        config |= {"output.url": tmp_path / "out", "engine": "local", "numerics.dtype": "float32"}
        config |= {"extension.method": "chat", "extension.base_url": echo.base_url}
        config |= {"extension.api_key_env": "null", "extension.language": "en"}
        (tmp_path / "c.yaml").write_text("{}\n")
        return [tmp_path / "c.yaml", *(f"{key}={value}" for key, value in (config | keys).items())]

    return write


def without_pixels(job):
    """The job with its real pools up to the encoders; what would follow only counts."""

    def idle(pool):
        config = SleepConfig(name=pool.name, seconds=0.0, last=pool.name == "decode")
        return replace(
            pool, stages=(StageSpec(name=pool.name, target="benchmarks.sleep:Sleep", config=config),)
        )

    pools = [pool if pool.name in ("extend", "encode") else idle(pool) for pool in job.pools]
    return replace(job, pools=tuple(pools))


def rows(seeds):
    return [{"prompt": f"cat number {row}", "seed": seed} for seed in seeds for row in range(10)]


def test_a_thousand_rows_of_ten_prompts_are_ten_extensions_and_eleven_encodings(
    written, echo, encoded, tmp_path
):
    for seeds in (range(100), range(100, 200)):
        path, *overrides = written(rows(seeds), **{"cache.url": tmp_path / "cache"})
        summary = execute(without_pixels(prepare(load_config(path, overrides), write=True)))
        assert (summary.committed, summary.failed) == (1000, 0)
        assert len(echo.seen) == 10, "the second run, over new seeds, asks nobody"
        assert len(encoded) == len(set(encoded)) == 11, "ten prompts and the negative one"
    kept = [path.parent.parent.name for path in (tmp_path / "cache").glob("*/*/*") if path.is_file()]
    assert (kept.count("extensions"), kept.count("texts")) == (10, 11)


@pytest.mark.parametrize(("keys", "expected"), [({}, 8), ({"pools.extend.concurrency": 3}, 3)])
def test_an_endpoint_is_asked_so_many_at_a_time(written, echo, keys, expected):
    echo.pause_s = 0.3
    path, *overrides = written([{"prompt": f"cat {row}", "seed": row} for row in range(16)], **keys)
    summary = execute(without_pixels(prepare(load_config(path, overrides), write=True)))
    assert summary.committed == len(echo.seen) == 16
    assert echo.most == expected


def test_two_runs_that_share_a_cache_at_once_do_each_other_no_harm(
    written, s3_url, tmp_path, encoded, run_cli
):
    prompts = [{"id": f"{row}", "prompt": f"cat {row % 3}", "seed": row} for row in range(6)]
    keys = {"cache.url": f"{s3_url}/cache", "output.save_latents": True}
    arguments = written(prompts, **keys)
    command = [str(Path(sys.executable).with_name("wanray")), "render", *map(str, arguments)]
    runs = [
        subprocess.Popen(
            [*command, f"output.url={tmp_path}/out{number}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    for process in runs:
        output, _ = process.communicate(timeout=110)
        assert process.returncode == 0, output
    assert run_cli("render", *arguments, f"output.url={tmp_path}/out2")[0] == 0
    assert encoded == [], "the third run finds all in the cache"
    latents = [
        {
            path.parent.name: load_file(path)["latents"]
            for path in tmp_path.glob(f"out{run}/clips/*/*/*.safetensors")
        }
        for run in range(3)
    ]
    assert len(latents[0]) == 6
    for others in latents[1:]:
        assert others.keys() == latents[0].keys()
        assert all(others[key].equal(latents[0][key]) for key in others)
