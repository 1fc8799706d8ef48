"""Single stages: what is encoded once, what is noted, what a payload keeps, what is committed."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from wanray.checkpoint import open_checkpoint
from wanray.config import OutputConfig
from wanray.errors import ConfigError
from wanray.models.state import DenoiseState
from wanray.records import Record, Request
from wanray.registry import Guidance
from wanray.sinks.ledger import Ledger
from wanray.stage import Worker
from wanray.stages.configs import DecodeConfig, EncodeConfig
from wanray.stages.decode import Decode
from wanray.stages.encode import Encode
from wanray.stages.payload import Payload
from wanray.storage import Store

REQUEST = Request(
    task="t2v", prompt="a red circle", negative_prompt="dark", width=64, height=48, num_frames=5, fps=16.0,
    seed=1, steps=2, shift=5.0, guidance=Guidance(high=5.0, low=5.0), solver="unipc",
)  # fmt: skip
RECORD = Record(key="ab" * 32, ids=("a",), request=REQUEST)


def silent(step, total):
    """A report that nobody reads."""


@pytest.fixture
def encode(tiny):
    checkpoint = open_checkpoint(tiny("t2v-1.3b"))
    config = EncodeConfig(
        text_encoder=checkpoint.text_encoder, tokenizer=checkpoint.tokenizer, mode="official", dtype="float32"
    )
    stage = Encode(config)
    stage.setup(Worker())
    yield stage
    stage.close()


def test_equal_texts_are_encoded_once(encode, monkeypatch):
    texts, compute = [], encode.encoder.encode_all
    monkeypatch.setattr(encode.encoder, "encode_all", lambda asked: texts.extend(asked) or compute(asked))
    for prompt in ("a cat", "a dog", "a cat"):
        encode.run(replace(RECORD, request=replace(REQUEST, prompt=prompt)), silent)
    assert sorted(texts) == sorted(["a cat", "a dog", REQUEST.negative_prompt])


def test_texts_asked_for_at_once_are_encoded_in_one_batch(encode, monkeypatch):
    batches, compute = [], encode.encoder.encode_all
    started, go = threading.Event(), threading.Event()

    def held(texts):
        started.set()
        assert go.wait(10)
        batches.append(sorted(texts))
        return compute(texts)

    monkeypatch.setattr(encode.encoder, "encode_all", held)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(encode.embed, "first")
        assert started.wait(10)
        others = [threads.submit(encode.embed, text) for text in ("a", "b", "b")]
        deadline_s = time.monotonic() + 10
        while len(encode.batcher._waiting) < 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        go.set()
        for future in (first, *others):
            future.result(timeout=10)
    assert batches == [["first"], ["a", "b"]]


def test_embeddings_are_trimmed_and_cut_texts_are_noted(encode):
    short = Payload.unpack(encode.run(RECORD, silent).payload)
    assert short.prompt_LD.shape == (4, 32), "three words and </s>"
    long = encode.run(replace(RECORD, request=replace(REQUEST, prompt="cat " * 600)), silent)
    assert Payload.unpack(long.payload).prompt_LD.shape == (512, 32)
    assert long.notes == ("prompt has 601 tokens; the last 89 were cut",)


def test_a_payload_comes_back_as_it_was():
    latents = torch.randn(1, 16, 2, 6, 8)
    state = DenoiseState(
        latents, 3, {"last_sample": latents, "model_outputs.0": latents + 1}, {"_step_index": 3}
    )
    conditions = {"control": torch.randn(1, 96, 2, 6, 8)}
    payload = Payload(torch.randn(4, 32).bfloat16(), torch.randn(2, 32), state, conditions)
    copy = Payload.unpack(payload.pack())
    assert torch.equal(copy.prompt_LD, payload.prompt_LD)
    assert copy.prompt_LD.dtype == torch.bfloat16
    assert torch.equal(copy.negative_LD, payload.negative_LD)
    assert torch.equal(copy.conditions["control"], conditions["control"])
    assert (copy.state.step, copy.state.scalars) == (3, {"_step_index": 3})
    assert all(torch.equal(copy.state.history[name], state.history[name]) for name in state.history)


def decoder(tiny, out):
    config = DecodeConfig(
        vae=open_checkpoint(tiny("t2v-1.3b")).vae,
        output=OutputConfig(url=str(out)),
        run="r",
        model={},
        numerics={"mode": "official", "vae_tiling": False},
    )
    Store.open(str(out)).write("runs/r/config.yaml", b"")
    stage = Decode(config)
    stage.setup(Worker())
    return stage


def test_an_output_that_another_node_does_not_see_is_refused(tiny, tmp_path):
    stage = decoder(tiny, tmp_path)
    (tmp_path / "runs/r/config.yaml").unlink()
    with pytest.raises(ConfigError, match="is not the same place on every node"):
        stage.setup(Worker())


def test_whoever_comes_second_takes_the_clip_that_is_committed(tiny, tmp_path):
    torch.manual_seed(0)
    payloads = [Payload(state=DenoiseState(torch.randn(1, 16, 2, 6, 8))).pack() for _ in range(2)]
    stage = decoder(tiny, tmp_path)
    first, second = (stage.run(replace(RECORD, payload=payload), silent) for payload in payloads)
    assert first.clip == second.clip
    assert len(list(tmp_path.glob("clips/*/*/video-*.mp4"))) == 1
    meta = Ledger(Store.open(str(tmp_path))).read_meta(RECORD.key)
    assert meta["video"]["sha256"] == first.clip.sha256
    assert first.payload == b""
