"""Whole runs of the official code, rendered by `wanray render` in float32 on the CPU, to its numbers.

`tests/golden/README.md` says what each file is and how close one may come.
"""

import json

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN, REFUSED, RUNS, render_rows, row_of
from PIL import Image
from safetensors.torch import load_file


def render(case, folder):
    """Render all runs of a case at once; returns run -> folder of its clip."""
    rows = [row_of(case, path.name) for path in sorted((GOLDEN / case / "runs").iterdir())]
    code, output = render_rows(rows, GOLDEN / case / "checkpoint", folder)
    assert code == (2 if any(case == refused for refused, _ in REFUSED) else 0), output
    metas = (folder / "out").glob("clips/*/*/meta.json")
    return {json.loads(path.read_text())["ids"][0]: path.parent for path in metas}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """rendered(case, run) -> folder of the clip; each case is rendered once."""
    clips = {}

    def get(case, run):
        if case not in clips:
            clips[case] = render(case, tmp_path_factory.mktemp(case))
        return clips[case][run]

    return get


def frames_of(clip):
    (folder,) = clip.glob("frames-*")
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize(("case", "run"), RUNS, ids=lambda name: name)
def test_latents_and_frames_are_the_official_ones(rendered, case, run):
    clip = rendered(case, run)
    inputs = json.loads((GOLDEN / case / "runs" / run / "inputs.json").read_text())
    expected = load_file(GOLDEN / case / "runs" / run / "outputs.safetensors")
    latents = load_file(clip / "latents.safetensors")["latents"]
    tolerance = max(1e-4, 4 * inputs["sensitivity"]["max_abs_change_of_final_latents"])
    torch.testing.assert_close(latents, expected["final_latents"], rtol=1e-4, atol=tolerance)
    relative = (latents - expected["final_latents"]).norm() / expected["final_latents"].norm()
    assert relative < 1e-4
    official, step = expected.get("video_uint8"), 1
    if official is None:
        official, step = expected["video_uint8_every_4th_frame"], 4
    frames = frames_of(clip)
    assert len(frames) == inputs["frame_num"]
    differences = np.abs(frames[::step].astype(int) - official.numpy().astype(int))
    assert (differences <= 1).mean() >= 0.999
    assert (differences == 0).mean() >= 0.99


def test_a_last_frame_of_another_aspect_is_refused_by_name(rendered):
    clip = rendered("flf2v-14B", "same_size")
    (failure,) = (json.loads(path.read_text()) for path in (clip.parents[2] / "failures").iterdir())
    assert failure["ids"] == ["other_size"]
    assert "column last_image: must have the aspect of image, 60x60, got 40x52" in failure["message"]


@pytest.mark.parametrize("case", ["i2v-14B", "ti2v-5B", "vace-1.3B"])
def test_meta_says_which_files_were_read(rendered, case):
    run = {"i2v-14B": "landscape", "ti2v-5B": "i2v", "vace-1.3B": "two_refs"}[case]
    meta = json.loads((rendered(case, run) / "meta.json").read_text())
    row = row_of(case, run)
    column = "reference_images" if case == "vace-1.3B" else "image"
    uris = [item["uri"] for item in meta["inputs"][column]]
    assert uris == ([row[column]] if case != "vace-1.3B" else row[column])
    assert [item["sha256"] for item in meta["inputs"][column]] == meta["request"]["inputs"][column]
