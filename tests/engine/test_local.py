"""The local engine through the command line: commit, resume, failures, files."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from runs import events, latents_of, metas, render, videos, write_config, write_manifest
from safetensors.torch import load_file, save_file

from wanray.records import canonical_json, content_key
from wanray.storage import Store


def test_render_then_nothing_left_to_do(tiny, tmp_path):
    manifest = write_manifest(tmp_path / "m.parquet", 3)
    config = write_config(
        tmp_path, tiny("t2v-1.3b"), manifest, engine="local", **{"output.save_latents": True}
    )
    code, output = render(config)
    assert code == 0, output
    committed = metas(tmp_path / "out")
    assert len(committed) == 3
    assert all(len(names) == 1 for names in videos(tmp_path / "out").values())
    for key, meta in committed.items():
        check_meta(key, meta, tmp_path / "out")
    code, output = render(config)
    assert code == 0, output
    assert "0 clips committed, 3 were committed before" in output
    assert len(events(tmp_path / "out", "dispatched")) == 3 * 3, "the second run took up committed rows"


def check_meta(key, meta, out):
    request = meta["request"]
    assert content_key(canonical_json(request), meta["model"], meta["numerics"]) == key == meta["key"]
    assert meta["video"]["num_frames"] == request["num_frames"] == 5
    assert {"encode", "denoise", "decode"} <= set(meta["timings_s"])
    assert meta["attempts"] == 1
    assert (Path(out) / meta["video"]["path"]).stat().st_size == meta["video"]["bytes"]
    latents = load_file(Path(out) / f"clips/{key[:2]}/{key}/latents.safetensors")["latents"]
    assert latents.dtype == torch.float32
    assert latents.shape == (16, 2, 6, 8)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not on PATH")
def test_ffprobe_agrees_with_meta(tiny, tmp_path):
    manifest = write_manifest(tmp_path / "m.parquet", 1, fps=24.0)
    code, output = render(write_config(tmp_path, tiny("t2v-1.3b"), manifest, engine="local"))
    assert code == 0, output
    (meta,) = metas(tmp_path / "out").values()
    video = tmp_path / "out" / meta["video"]["path"]
    probe = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(video)]
    (stream,) = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)["streams"]
    assert (stream["codec_name"], stream["pix_fmt"], stream["avg_frame_rate"]) == ("h264", "yuv420p", "24/1")
    assert (stream["width"], stream["height"], int(stream["nb_read_frames"])) == (64, 48, 5)
    assert video.read_bytes().index(b"moov") < video.read_bytes().index(b"mdat")


def test_all_placements_give_equal_latents(tiny, tmp_path):
    manifest = write_manifest(tmp_path / "m.parquet", 3)
    ways = {way: {"placement": way} for way in ("split", "both", "swap")}
    ways["host"] = {"placement": "split", "denoise.offload": "sequential"}
    for way, keys in ways.items():
        (tmp_path / way).mkdir()
        keys |= {"engine": "local", "output.save_latents": True}
        code, output = render(write_config(tmp_path / way, tiny("t2v-a14b"), manifest, **keys))
        assert code == 0, output
    split, *others = (latents_of(tmp_path / way / "out") for way in ways)
    assert len(split) == 3
    for other in others:
        assert other.keys() == split.keys()
        assert all(torch.equal(split[key], other[key]) for key in split)
    taken = [entry for entry in events(tmp_path / "swap/out", "released") if entry["pool"] == "denoise"]
    assert Counter(entry["outcome"] for entry in taken) == {"part done": 3, "done": 3}
    assert all(meta["timings_s"]["denoise"] > 0 for meta in metas(tmp_path / "swap/out").values())
    assert not Store.open(str(tmp_path / "swap/out")).names("work"), "states of what is done were left"


def test_weights_that_do_not_load_end_the_run_with_a_message(tiny, tmp_path):
    model = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    settings = model / "vae" / "config.json"
    settings.write_text(settings.read_text().replace('"base_dim": 4', '"base_dim": 8'))
    manifest = write_manifest(tmp_path / "m.parquet", 1)
    code, output = render(write_config(tmp_path, model, manifest, engine="local"))
    assert code == 1, output
    assert "model.path is damaged" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae"])
def test_weights_that_lack_a_tensor_are_refused(tiny, tmp_path, part):
    model = shutil.copytree(tiny("t2v-1.3b"), tmp_path / "model")
    (weights,) = (model / part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = next(name for name in sorted(tensors) if name.endswith("weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, weights, {"format": "pt"})
    manifest = write_manifest(tmp_path / "m.parquet", 1)
    code, output = render(write_config(tmp_path, model, manifest, engine="local"))
    assert code == 1, output
    assert lost in output
    assert not metas(tmp_path / "out")


def test_a_key_with_two_ids_is_rendered_once(tiny, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = {"width": 64, "height": 48, "num_frames": 5, "steps": 2}
    rows = [{"id": name, "prompt": "a dog", "seed": 1, **shape} for name in ("first", "second")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    code, output = render(write_config(tmp_path, tiny("t2v-1.3b"), tmp_path / "m.parquet", engine="local"))
    assert code == 0, output
    (meta,) = metas(tmp_path / "out").values()
    assert meta["ids"] == ["first", "second"]
