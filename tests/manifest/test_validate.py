"""Each rule: what breaks it, what does not, and what the message says."""

import wave

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from wanray.manifest import validate
from wanray.manifest.arrays import table_of
from wanray.manifest.columns import normalise_table
from wanray.manifest.media import MediaOpener
from wanray.manifest.problems import Problem, describe, located
from wanray.manifest.validate import require_prompt
from wanray.registry import Model, get_model

MODEL = get_model("t2v-a14b")


def messages(*rows, model: Model | None = MODEL):
    """`row column: message` of all problems of rows given as dicts."""
    table, problems = normalise_table(table_of(list(rows)))
    assert problems == []
    return [f"{problem.row} {problem.column}: {problem.message}" for problem in validate(table, model)]


BAD = [
    ("id", "", "must not be empty, got ''"),
    ("id", "x" * 257, "must have at most 256 characters, got 257"),
    ("id", "a\nb", "must have no control characters, got 'a\\nb'"),
    ("prompt", " \n\t", "must not be blank, got ' \\n\\t'"),
    ("prompt", "\u3000", "must not be blank, got '\\u3000'"),
    ("prompt", "x" * 20_001, "must have at most 20,000 characters, got 20001"),
    ("task", "i2v", "must be t2v or t2i, a task of model t2v-a14b, got 'i2v'"),
    ("size", "832", "must be WIDTHxHEIGHT such as 832x480, got '832'"),
    ("size", "832x481", "must have sides that are multiples of 16 pixels, got '832x481'"),
    ("size", "832x8208", "must have sides of 16 to 8192 pixels, got '832x8208'"),
    ("width", 830, "must be a multiple of 16 pixels, got 830"),
    ("width", 8208, "must be 16 to 8192 pixels, got 8208"),
    ("height", 0, "must be 16 to 8192 pixels, got 0"),
    ("num_frames", 80, "must be 4n+1 (5, 9, ..., 81), got 80"),
    ("num_frames", 10_005, "must be 1 to 4093, got 10005"),
    ("steps", 0, "must be 1 to 1000, got 0"),
    ("steps", 1001, "must be 1 to 1000, got 1001"),
    ("fps", 0, "must be 0.1 to 240, got 0.0"),
    ("fps", 240.5, "must be 0.1 to 240, got 240.5"),
    ("shift", -1.0, "must be 0.01 to 100, got -1.0"),
    ("shift", 101, "must be 0.01 to 100, got 101.0"),
    ("guidance", -0.5, "must be 0 to 100 for both experts, got {'high': -0.5, 'low': -0.5}"),
    (
        "guidance",
        {"high": 4, "low": 101},
        "must be 0 to 100 for both experts, got {'high': 4.0, 'low': 101.0}",
    ),
    ("seed", -1, "must be 0 to 9223372036854775807, got -1"),
    ("seeds", [], "must hold at least one seed, got []"),
    ("seeds", [3, -1], "must be 0 to 9223372036854775807 each, got [3, -1]"),
    ("solver", "euler", "must be one of unipc, dpm++, got 'euler'"),
    ("image", "a.png", "model t2v-a14b takes no image: leave it out, got 'a.png'"),
    ("lora", [{"path": "x"}], "model t2v-a14b takes no lora: leave it out"),
    ("context_scale", 1.0, "model t2v-a14b takes no context_scale: leave it out, got 1.0"),
    ("max_area", 256, "model t2v-a14b takes no max_area: leave it out, got 256"),
]

GOOD = {
    "id": ["x" * 256, "a b/\u732b"],
    "prompt": ["x" * 20_000, "\u72d0\u72f8"],
    "negative_prompt": [""],
    "task": ["t2v"],
    "size": ["832x480", "832*480", "16x8192"],
    "width": [16, 8192],
    "height": [480],
    "num_frames": [1, 5, 81, 4093],
    "steps": [1, 1000],
    "fps": [0.5, 240],
    "shift": [0.1, 100],
    "guidance": [0, 100, {"high": 4, "low": 3}],
    "seed": [0, 2**63 - 1],
    "seeds": [[0], [1, 2]],
    "solver": ["unipc", "dpm++"],
    "priority": [-5],
    "tags": [{"a": 1}],
}


@pytest.mark.parametrize(("column", "value", "message"), BAD)
def test_broken_rule(column, value, message):
    found = messages({"prompt": "a"} | {column: value}, {"prompt": "a"})
    assert len(found) == 1
    assert found[0].startswith(f"0 {column}: {message}")


@pytest.mark.parametrize("column", GOOD)
def test_kept_rule(column):
    assert messages(*({column: value} for value in GOOD[column]), {column: None}) == []


def test_exclusions():
    assert messages({"size": "832x480", "width": 832}, {"size": "832x480"}, {"width": 832}) == [
        "0 size: excludes width in the same row: keep one of them, got '832x480'"
    ]
    assert messages({"size": "832x480", "height": 480}) == [
        "0 size: excludes height in the same row: keep one of them, got '832x480'"
    ]
    assert messages({"seed": 1, "seeds": [1]}, {"seed": 1}, {"seeds": [1]}) == [
        "0 seeds: excludes seed in the same row: keep one of them, got [1]"
    ]


def test_all_problems_are_collected():
    found = messages({"steps": 0, "fps": -1}, {"steps": 20, "fps": 16}, {"steps": 5000, "fps": 16})
    assert [text.split(":")[0] for text in found] == ["0 fps", "0 steps", "2 steps"]


def test_without_a_model_only_general_rules_hold():
    row = {"width": 830, "num_frames": 80, "task": "i2v", "image": "a.png", "steps": 0}
    assert messages(row, model=None) == ["0 steps: must be 1 to 1000, got 0"]


def test_required_prompt():
    assert [problem.row for problem in require_prompt(pa.table({"prompt": ["a", None, ""]}), MODEL)] == [1]
    assert [problem.row for problem in require_prompt(pa.table({"id": ["a"]}), MODEL)] == [0]


def test_message_names_row_id_column_value_and_rule():
    table, _ = normalise_table(pa.table({"num_frames": [81, 80]}))
    (problem,) = located(validate(table, MODEL), 16, ["dog", "cat"])
    assert str(problem) == 'row 17 (id "cat"), column num_frames: must be 4n+1 (5, 9, ..., 81), got 80'
    whole = Problem(17, "cat", "", "line 18 of m.jsonl is not JSON")
    assert str(whole) == 'row 17 (id "cat"): line 18 of m.jsonl is not JSON'
    assert describe([problem, problem]).endswith(
        "got 80; column num_frames: must be 4n+1 (5, 9, ..., 81), got 80"
    )


def write_video(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", 8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in (av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)), None):
            container.mux(stream.encode(frame))


@pytest.fixture
def media(tmp_path):
    """A folder with a picture, a video, a sound and files that are none of them."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    write_video(tmp_path / "a.mp4")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(128))
    for name in ("bad.png", "bad.bin"):
        (tmp_path / name).write_bytes(b"not a picture")
    return tmp_path


def media_problems(*rows):
    table, problems = normalise_table(table_of(list(rows)))
    assert problems == []
    return MediaOpener(lambda sha256, content: "kept").open(table)[1]


def test_media_that_open(media):
    found = media_problems(
        {"image": f"{media}/a.png", "video": f"{media}/a.mp4", "mask": f"{media}/a.png"},
        {"reference_images": [f"{media}/a.png", f"file://{media}/a.png"]},
        {"last_image": f"{media}/a.png"},
    )
    assert found == []


def test_media_bytes(media):
    content = (media / "a.png").read_bytes()
    table, _ = normalise_table(pa.table({"image": [{"bytes": content}, {"bytes": b"nothing"}]}))
    _, (problem,) = MediaOpener(lambda sha256, content: "kept").open(table)
    assert (problem.row, problem.column) == (1, "image")
    assert "must be a readable file, got 7 bytes: it is no image of a known format" in problem.message


@pytest.mark.parametrize(
    ("column", "name", "reason"),
    [
        ("image", "none.png", "it does not exist"),
        ("image", "bad.png", "it is no image of a known format"),
        ("video", "bad.png", "it is no video, or damaged"),
        ("mask", "bad.bin", "Invalid data"),
        ("video", "a.wav", "it has no video stream"),
    ],
)
def test_media_that_do_not_open(media, column, name, reason):
    (problem,) = media_problems({column: f"{media}/{name}"})
    assert problem.column == column
    assert f"must be a readable file, got '{media}/{name}': " in problem.message
    assert reason in problem.message
