"""Options of text encoding through the command: which change keys, and which do not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

ROW = {"prompt": "a cat", "seed": 1, "width": 64, "height": 48, "num_frames": 5, "steps": 2}


@pytest.fixture
def render(tmp_path, tiny, run_cli):
    """render(*overrides) -> (meta, final latents) of the one clip."""
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "m.parquet")
    config = tmp_path / "c.yaml"
    config.write_text(f"manifest: {tmp_path}/m.parquet\nengine: local\nmodel: {{path: {tiny('t2v-1.3b')}}}\n")

    def run(name, *overrides):
        out = tmp_path / name
        keys = [f"output.url={out}", "output.save_latents=true", "numerics.dtype=float32"]
        code, _, errors = run_cli("render", config, *keys, *overrides)
        assert code == 0, errors
        (meta,) = out.glob("clips/*/*/meta.json")
        return json.loads(meta.read_text()), load_file(meta.with_name("latents.safetensors"))["latents"]

    return run


def test_where_the_text_encoder_computes_is_no_part_of_the_key(render):
    plain, latents = render("plain")
    placed, same = render("placed", "encode.t5=cpu", "pools.encode.concurrency=4")
    assert placed["key"] == plain["key"]
    assert same.equal(latents)
    assert "text_int8" not in plain["numerics"]


def test_weights_of_8_bits_are_part_of_the_key(render):
    plain, latents = render("plain")
    small, other = render("small", "numerics.text_int8=true")
    assert small["key"] != plain["key"]
    assert small["numerics"] == plain["numerics"] | {"text_int8": True}
    error = (other - latents).norm() / latents.norm()
    assert 0 < error < 0.1
