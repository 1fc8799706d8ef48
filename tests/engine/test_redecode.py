"""`wanray decode`: saved latents become videos again, with another codec, without the transformer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from runs import ENVIRONMENT, metas, render, write_config, write_manifest
from safetensors.numpy import load_file


def decode(latents, arguments):
    """`wanray decode` as a user starts it; returns (exit code, output of both streams)."""
    command = [str(Path(sys.executable).with_name("wanray")), "decode", str(latents), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | ENVIRONMENT, check=False, timeout=240
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def rendered(tiny, tmp_path_factory):
    """Folder and arguments of a render of two clips with latents, as PNG files."""
    folder = tmp_path_factory.mktemp("rendered")
    manifest = write_manifest(folder / "m.parquet", 2, width=96, height=64)
    arguments = write_config(folder, tiny("t2v-1.3b"), manifest, engine="local")
    arguments += ["output.save_latents=true", "output.video.format=png"]
    code, output = render(arguments)
    assert code == 0, output
    return folder, arguments


def frames_of(clip):
    (folder,) = clip.glob("frames-*")
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def test_the_same_frames_in_another_format_and_again_nothing(rendered, tmp_path):
    folder, arguments = rendered
    arguments = [*arguments, f"output.url={tmp_path}/out", "output.video.format=webm", "output.video.crf=4"]
    code, output = decode(folder / "out", arguments)
    assert code == 0, output
    before, after = metas(folder / "out"), metas(tmp_path / "out")
    assert set(before) == set(after), "codec and format are not part of the key"
    for key, meta in after.items():
        assert meta["video"]["codec"] == "vp9"
        assert meta["request"] == before[key]["request"]
        assert meta["topology"] == before[key]["topology"]
        assert meta["timings_s"]["denoise"] == before[key]["timings_s"]["denoise"]
        with av.open(str(tmp_path / "out" / meta["video"]["path"])) as video:
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
        original = frames_of(folder / "out" / "clips" / key[:2] / key)
        assert decoded.shape == original.shape
        assert np.abs(decoded.astype(int) - original).mean() < 12
    code, output = decode(folder / "out", arguments)
    assert code == 0
    assert "0 clips committed, 2 were committed before" in output


def test_tiling_changes_the_key_and_keeps_the_latents(rendered, tmp_path):
    folder, arguments = rendered
    code, output = decode(
        folder / "out", [*arguments, f"output.url={tmp_path}/out", "numerics.vae_tiling=true"]
    )
    assert code == 0, output
    before, after = metas(folder / "out"), metas(tmp_path / "out")
    assert not set(before) & set(after)
    latents = [
        {
            meta["ids"][0]: load_file(out / "clips" / key[:2] / key / "latents.safetensors")["latents"]
            for key, meta in found.items()
        }
        for out, found in ((folder / "out", before), (tmp_path / "out", after))
    ]
    assert all(np.array_equal(latents[0][name], latents[1][name]) for name in ("r0", "r1"))


def test_clips_without_latents_are_failures_and_the_rest_is_decoded(rendered, tmp_path):
    folder, arguments = rendered
    key = sorted(metas(folder / "out"))[0]
    saved = folder / "out" / "clips" / key[:2] / key / "latents.safetensors"
    saved.rename(saved.with_name("hidden"))
    try:
        code, output = decode(folder / "out", [*arguments, f"output.url={tmp_path}/out"])
    finally:
        saved.with_name("hidden").rename(saved)
    assert code == 2, output
    (failure,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "failures").iterdir())
    assert "has no latents: render it with output.save_latents=true" in failure["message"]
    assert len(metas(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("numerics.dtype=bfloat16", ["numerics.dtype is bfloat16", "set numerics.dtype=float32"]),
        ("model.path=OTHER", ["model.path has t2v-14b", "were rendered with t2v-1.3b"]),
    ],
)
def test_other_weights_or_numerics_are_refused(rendered, tiny, tmp_path, override, words):
    folder, arguments = rendered
    override = override.replace("OTHER", str(tiny("t2v-14b"))) if "OTHER" in override else override
    extra = ["model.name=t2v-14b"] if "model.path" in override else []
    code, output = decode(folder / "out", [*arguments, f"output.url={tmp_path}/out", override, *extra])
    assert code == 1
    assert all(word in output for word in words), output


def test_a_place_without_clips_is_refused(rendered, tmp_path):
    _, arguments = rendered
    code, output = decode(tmp_path / "nothing", [*arguments, f"output.url={tmp_path}/out"])
    assert code == 1
    assert "has no clips: name the output.url of a render" in output
