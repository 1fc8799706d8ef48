"""An OpenAI-compatible server that is not ours answers the client: `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image
from tiny_writer import SENTENCES, write_seeing_writer, write_writer

from wanray.prompts import ChatClient, CutAnswerError, EndpointError, Question

START_S = 100
NUM_SEEDS = 8
QUESTION = Question(text="a cat", system="write more", seed=0)
IMAGE = np.full((40, 60, 3), (255, 0, 0), dtype=np.uint8)
SMALL = {"width": 64, "height": 48, "num_frames": 5, "steps": 1}


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writers")
    write_writer(folder / "text")
    write_seeing_writer(folder / "seeing")
    return folder


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    """Of a server that loads whichever folder a request names as its model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).parent / "transformers"
    options = ["--host=127.0.0.1", f"--port={port}", "--device=cpu"]
    path = tmp_path_factory.mktemp("serve") / "log"
    with path.open("wb") as log:
        server = subprocess.Popen(
            [program, "serve", *options],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        assert is_up(f"http://127.0.0.1:{port}/health", server), path.read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait(timeout=10)


def is_up(url, server):
    deadline_s = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            return requests.get(url, timeout=5).ok
        except requests.ConnectionError:
            time.sleep(0.1)
    return False


@pytest.fixture
def ask(base_url, writers):
    """ask(question, name of the model's folder) -> the answer."""

    def ask(question, name="text", **options):
        client = ChatClient(base_url, str(writers / name), None, **options)
        try:
            return client.ask(question)
        finally:
            client.close()

    return ask


@pytest.fixture
def job(tmp_path, tiny, base_url, writers):
    """job(row, model, **keys) -> arguments of `wanray`, whose output is `out`."""

    def make(row, model="t2v-1.3b", **keys):
        pq.write_table(pa.Table.from_pylist([SMALL | {"seed": 1} | row]), tmp_path / "m.parquet")
        (tmp_path / "c.yaml").write_text("{}\n")
        config = {"manifest": tmp_path / "m.parquet", "output.url": tmp_path / "out", "engine": "local"}
        config |= {"model.path": tiny(model), "numerics.dtype": "float32", "extension.method": "chat"}
        config |= {"extension.base_url": base_url, "extension.api_key_env": "null"}
        config |= {"extension.model": writers / "text", "extension.image_model": writers / "seeing"}
        config |= {"extension.language": "en", "extension.retries": 0}
        return [tmp_path / "c.yaml", *(f"{key}={value}" for key, value in (config | keys).items())]

    return make


def answers(ask, question, name="text"):
    return tuple(ask(replace(question, seed=seed), name) for seed in range(NUM_SEEDS))


def test_its_answer_comes_through(ask):
    assert ask(QUESTION) in SENTENCES


def test_the_seed_makes_the_answer(ask):
    """Of questions that come one after the other: to the server the seed is its process's."""
    first = answers(ask, QUESTION)
    assert first == answers(ask, QUESTION)
    assert len(set(first)) > 1


def test_without_temperature_there_is_one_answer(ask):
    assert len({ask(replace(QUESTION, seed=seed), temperature=0.0) for seed in range(NUM_SEEDS)}) == 1


def test_what_is_asked_tells(ask):
    others = [replace(QUESTION, text="the sea at night"), replace(QUESTION, system="write it in Chinese")]
    assert len({answers(ask, question) for question in (QUESTION, *others)}) == 3


def test_images_and_their_order_tell(ask):
    pictures = [(), (IMAGE,), (255 - IMAGE,), (IMAGE, 255 - IMAGE), (255 - IMAGE, IMAGE)]
    given = [answers(ask, replace(QUESTION, images=images), "seeing") for images in pictures]
    assert set().union(*given) <= SENTENCES
    assert len(set(given)) == len(pictures)


def test_an_image_alone_is_a_question(ask):
    assert ask(replace(QUESTION, text="", images=(IMAGE,)), "seeing") in SENTENCES


def test_an_answer_that_is_cut(ask):
    with pytest.raises(CutAnswerError, match="max_tokens"):
        ask(replace(QUESTION, max_tokens=3))


def test_a_model_that_is_not_there(ask):
    with pytest.raises(EndpointError, match="no answer in 1 try: HTTP 500"):
        ask(QUESTION, "elsewhere", retries=0)


def test_the_command_extends_and_renders(job, run_cli, tmp_path):
    arguments = job({"prompt": "a cat"})
    code, output, errors = run_cli("extend", *arguments)
    assert code == 0, errors
    assert "1 prompts extended, 0 kept as written, 0 rows left out" in output
    (row,) = pq.read_table(tmp_path / "out/extended.parquet").to_pylist()
    assert row["prompt"] in SENTENCES
    assert row["written_prompt"] == "a cat"
    assert run_cli("render", *arguments)[0] == 0
    (path,) = tmp_path.glob("out/clips/*/*/meta.json")
    assert json.loads(path.read_text())["extended"] == {"prompt": row["prompt"]}


def test_the_command_has_an_image_described(job, run_cli, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    row = {"image": str(tmp_path / "image.png")}
    code, _, errors = run_cli("extend", *job(row, model="i2v-14b-720p"))
    assert code == 0, errors
    assert pq.read_table(tmp_path / "out/extended.parquet")["prompt"][0].as_py() in SENTENCES


def test_the_command_keeps_a_prompt_whose_answer_is_cut(job, run_cli, tmp_path):
    code, output, _ = run_cli("render", *job({"prompt": "a cat"}, **{"extension.max_tokens": 3}))
    assert code == 0, output
    (path,) = tmp_path.glob("out/clips/*/*/meta.json")
    assert "does not end within max_tokens" in json.loads(path.read_text())["extended"]["kept"]
