"""How many workers encode: prompts that requests share count once, and the plan says what is too few."""

from io import StringIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from wanray.checkpoint import open_checkpoint
from wanray.config import load_config
from wanray.engine.prepare import prepare
from wanray.plan.encoding import encode_work_s, num_linear, workers_to_feed
from wanray.plan.page import plan_page


@pytest.fixture
def planned(tiny, tmp_path):
    """planned(rows, *overrides) -> the plan of these rows."""

    def plan(rows, *overrides):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
        config = tmp_path / "c.yaml"
        config.write_text(f"manifest: {tmp_path}/m.parquet\noutput: {{url: {tmp_path}/out}}\n")
        loaded = load_config(config, [f"model.path={tiny('t2v-1.3b')}", *overrides])
        return prepare(loaded, write=False).plan

    return plan


def encode_pool(plan):
    return next(pool for pool in plan.pools if pool.name == "encode")


@pytest.mark.parametrize(
    ("encode_s", "denoise_s", "workers"), [(0, 10, 1), (10, 10, 1), (10.1, 10, 2), (95, 10, 10), (5, 0, 1)]
)
def test_workers_encode_in_the_time_of_the_gangs(encode_s, denoise_s, workers):
    assert workers_to_feed(encode_s, denoise_s) == workers


def test_what_seeds_share_is_counted_once(planned):
    rows = [{"prompt": f"a cat {row % 10}", "seed": row} for row in range(1000)]
    plan = planned(rows, "estimate.encode_s=2", "pools.encode.workers=4")
    assert plan.counts.left == 1000
    assert encode_pool(plan).busy_s == 10 * 2 / 4


def test_what_is_committed_is_not_encoded_again(planned, tmp_path, tiny, run_cli):
    small = {"width": 64, "height": 48, "num_frames": 5, "steps": 2}
    rows = [{"id": f"r{row}", "prompt": f"cat {row}", "seed": row, **small} for row in range(2)]
    assert encode_pool(planned(rows, "estimate.encode_s=3")).busy_s == 6
    arguments = ["render", tmp_path / "c.yaml", f"model.path={tiny('t2v-1.3b')}", "engine=local"]
    assert run_cli(*arguments, "--only", "r0")[0] == 0
    assert encode_pool(planned(rows, "estimate.encode_s=3")).busy_s == 3


def page_of(plan):
    stream = StringIO()
    Console(file=stream, width=150).print(plan_page(plan))
    return stream.getvalue()


def test_the_page_says_how_many_would_be_enough(planned):
    rows = [{"prompt": f"a cat {row}", "seed": row, "width": 832, "height": 480} for row in range(8)]
    slow = ["estimate.peak_tflops=0.001"]
    gang_s = planned(rows, *slow, "estimate.encode_s=0").estimate_s
    encode_s = f"estimate.encode_s={gang_s / 8 * 2.5}"
    plan = planned(rows, *slow, encode_s)
    assert encode_pool(plan).needed == 3
    assert plan.estimate_s == pytest.approx(2.5 * gang_s, rel=0.1)
    assert "1 actor; 3 would keep the gangs busy" in page_of(plan)
    assert "would keep" not in page_of(planned(rows, *slow, encode_s, "pools.encode.workers=3"))


def test_no_more_workers_are_asked_for_than_there_are_prompts(planned):
    rows = [{"prompt": f"a cat {row % 2}", "seed": row} for row in range(8)]
    plan = planned(rows, "estimate.encode_s=1000")
    assert encode_pool(plan).needed == 2


def test_moments_are_not_worth_a_word(planned):
    plan = planned([{"prompt": f"a cat {row}", "seed": row} for row in range(8)], "estimate.encode_s=1")
    assert encode_pool(plan).needed == 8
    assert "would keep" not in page_of(plan)


def test_embeddings_are_no_work(tiny):
    """Two layers of 4 projections of 32 x 32 and three of 32 x 64."""
    assert num_linear(open_checkpoint(tiny("t2v-1.3b")).text_encoder) == 2 * (4 * 32 * 32 + 3 * 32 * 64)


def test_texts_cost_what_their_buckets_cost(tiny, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"manifest: m.parquet\noutput: {{url: {tmp_path}/out}}\n")
    encoder = open_checkpoint(tiny("t2v-1.3b")).text_encoder

    def seconds(text_bytes, *overrides, on_gpu=False):
        loaded = load_config(config, [f"model.path={tiny('t2v-1.3b')}", *overrides])
        return encode_work_s(loaded, on_gpu, num_linear(encoder), np.array(text_bytes, np.int32))

    one = seconds([100])
    assert one == pytest.approx(2 * num_linear(encoder) * 64 / 1e12 / 0.05)
    assert seconds([100, 300, 5000]) == pytest.approx(one * (1 + 2 + 8))
    assert seconds([100], "pools.encode.resources={CPU: 4}") == pytest.approx(one / 4)
    assert seconds([100], on_gpu=True) < one / 1000
    assert seconds([100], "extension.method=chat") == pytest.approx(4 * one), "its length is not known"
