"""Images and videos that are missing, wrong or do not fit: each is named, and the good rows are rendered."""

import hashlib
import io
import json
import struct
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

CONFIG = """\
manifest: rows.jsonl
output: {url: out}
model: {path: tiny}
engine: local
run: r
numerics: {dtype: float32}
defaults: {size: 64x64, num_frames: 5, steps: 1, seed: 1}
"""


def write_movie(path, frames, sound=False):
    """h264 of RGB frames, if any; with `sound` half a second of silence."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=Fraction(16)) if len(frames) else None
        audio = output.add_stream("aac", rate=48000, layout="mono") if sound else None
        if video is not None:
            video.height, video.width, _ = frames[0].shape
            video.pix_fmt = "yuv420p"
            for array in frames:
                output.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            output.mux(video.encode())
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 24000), np.float32), "fltp", "mono")
            frame.rate = 48000
            output.mux(audio.encode(frame))
            output.mux(audio.encode())


def png_of_size(width, height):
    """A PNG whose header claims these sides."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with good and bad media."""
    folder, random = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    sizes = {"good": (64, 64), "good2": (32, 32), "wide": (96, 64), "thin": (3000, 10), "dot": (8, 8)}
    for name, (width, height) in sizes.items():
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "bomb.png").write_bytes(png_of_size(100_000, 100_000))
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:20])
    (folder / "empty.png").touch()
    frames = random.integers(0, 256, (9, 64, 64, 3), np.uint8)
    write_movie(folder / "good.mp4", frames, sound=True)
    write_movie(folder / "five.mp4", frames[:5])
    write_movie(folder / "small.mp4", frames[:, :32, :32])
    write_movie(folder / "flat.mp4", frames[:, :8, :])
    write_movie(folder / "audio.mp4", [], sound=True)
    (folder / "cut.mp4").write_bytes((folder / "good.mp4").read_bytes()[:9000])
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    return folder


@pytest.fixture
def here(media, tmp_path, monkeypatch):
    """A working directory with config.yaml and the media."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    for path in media.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.fixture
def run_cli(here, run_cli):
    """The command in the working directory of `here`."""
    return run_cli


def write_rows(rows):
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def records(pattern):
    """id -> record."""
    found = [json.loads(path.read_bytes()) for path in Path("out").glob(pattern)]
    return {id_: record for record in found for id_ in record["ids"]}


READABLE = "column image: must be a readable file, got"
BAD_IMAGES = [
    ({"image": "none.png"}, f"{READABLE} 'none.png': it does not exist"),
    ({"image": "folder.png"}, f"{READABLE} 'folder.png': it is a folder"),
    ({"image": "empty.png"}, f"{READABLE} 'empty.png': it is no image of a known format (PNG, JPEG"),
    ({"image": "text.png"}, f"{READABLE} 'text.png': it is no image of a known format (PNG, JPEG"),
    ({"image": "cut.png"}, f"{READABLE} 'cut.png': it is a damaged PNG"),
    ({"image": "good.mp4"}, f"{READABLE} 'good.mp4': it is no image of a known format"),
    ({"image": "sound.wav"}, f"{READABLE} 'sound.wav': it is no image of a known format"),
    ({"image": "bomb.png"}, f"{READABLE} 'bomb.png': it has 100000x100000 pixels, more than the 100000000"),
    ({"image": "nowhere://x.png"}, f"{READABLE} 'nowhere://x.png': scheme nowhere is not allowed"),
    ({"image": ""}, "column image: must be a URI or {bytes, path} with one of the two, got ''"),
    ({"image": ["good.png"]}, "column image: must be a URI or {bytes, path} with one of the two"),
    (
        {"image": "thin.png"},
        "column image: leaves no height under 4096 pixels, got 3000x10: crop it",
    ),
]
BAD_NUMBERS = [
    ({"num_frames": 6}, "column num_frames: must be 4n+1 (5, 9, ..., 81), got 6"),
    ({"max_area": 100}, "column max_area: must be 256 to 67108864 pixels, got 100"),
    ({"max_area": "big"}, "column max_area: must be a whole number, got 'big'"),
]
"""Of a row with a good image."""

GOOD = {"prompt": "a", "image": "good.png"}
SOURCE = {"prompt": "a", "video": "good.mp4"}
BAD = {
    "t2v-1.3b": [
        ({"prompt": ""}, "column prompt: must not be blank, got ''"),
        ({"prompt": None}, "column prompt: is required: give it in the row or as defaults.prompt"),
        (GOOD, "column image: model t2v-1.3b takes no image: leave it out"),
        (SOURCE, "column video: model t2v-1.3b takes no video: leave it out"),
        ({"prompt": "a", "audio": "sound.wav"}, "column audio: model t2v-1.3b takes no audio: leave it out"),
        ({"prompt": "a", "context_scale": 1}, "column context_scale: model t2v-1.3b takes no context_scale"),
        ({"prompt": "a", "max_area": 4096}, "column max_area: model t2v-1.3b takes no max_area"),
        ({"prompt": "a", "video_sampling": "cut"}, "model t2v-1.3b takes no video_sampling: leave it out"),
        ({"prompt": "a", "task": "t2i", "num_frames": 5}, "column num_frames: must be 1 for task t2i, got 5"),
        (
            {"prompt": "a", "task": "i2v"},
            "column task: must be t2v or t2i, a task of model t2v-1.3b, got 'i2v'",
        ),
        ({"prompt": "a", "size": "72x64"}, "column size: must have sides that are multiples of 16 pixels"),
    ],
    "i2v-14b-480p": [
        *((GOOD | row, says) for row, says in BAD_IMAGES + BAD_NUMBERS),
        ({"prompt": "a"}, "column image: is required for task i2v: name a file"),
        ({"image": "good.png"}, "column prompt: is required: give it in the row or as defaults.prompt"),
        (GOOD | {"prompt": ""}, "column prompt: must not be blank, got ''"),
        (GOOD | {"video": "good.mp4"}, "column video: model i2v-14b-480p takes no video: leave it out"),
        (GOOD | {"last_image": "good.png"}, "column last_image: model i2v-14b-480p takes no last_image"),
        (
            GOOD | {"key_images": ["good.png"], "key_frames": [1]},
            "column key_frames: model i2v-14b-480p takes no",
        ),
        (GOOD | {"task": "t2v"}, "column task: must be i2v, the task of model i2v-14b-480p, got 't2v'"),
    ],
    "flf2v-14b": [
        (GOOD, "column last_image: is required for task flf2v: name a file"),
        ({"prompt": "a", "last_image": "good.png"}, "column image: is required for task flf2v: name a file"),
        (GOOD | {"last_image": "none.png"}, "column last_image: must be a readable file, got 'none.png'"),
        (
            GOOD | {"last_image": "wide.png"},
            "column last_image: must have the aspect of image, 64x64, got 96x64: crop one",
        ),
        (
            GOOD | {"last_image": "good2.png", "num_frames": 1},
            "column num_frames: must be at least 5 for task flf2v, got 1",
        ),
    ],
    "i2v-a14b": [
        ({"prompt": ""}, "column image: is required for task i2v: name a file"),
        ({"image": "good.png"}, 'or write "" to render from the image alone'),
        (GOOD | {"last_image": "wide.png"}, "column last_image: must have the aspect of image"),
        (GOOD | {"task": "flf2v"}, "column last_image: is required for task flf2v: name a file"),
        (
            GOOD | {"task": "i2v", "last_image": "good.png"},
            "column last_image: is not taken by task i2v: leave it out, or name another task",
        ),
    ],
    "ti2v-5b": [
        ({"prompt": "a", "size": "48x64"}, "must have sides that are multiples of 32 pixels, got '48x64'"),
        ({"prompt": "a", "width": 80}, "column width: must be a multiple of 32 pixels, got 80"),
        (
            GOOD | {"task": "t2v"},
            "column image: is not taken by task t2v: leave it out, or name another task",
        ),
        ({"prompt": "a", "task": "i2v"}, "column image: is required for task i2v: name a file"),
        (
            {"prompt": "a", "task": "vace"},
            "column task: must be t2v or i2v or t2i or ti2v, a task of model ti2v-5b",
        ),
        ({"prompt": "", "image": "good.png"}, "column prompt: must not be blank"),
        (GOOD | {"last_image": "good.png"}, "column last_image: model ti2v-5b takes no last_image"),
    ],
    "vace-1.3b": [
        (SOURCE | {"video": "none.mp4"}, "column video: must be a readable file, got 'none.mp4'"),
        (SOURCE | {"video": "text.png"}, "got 'text.png': it is no video, or damaged"),
        (SOURCE | {"video": "audio.mp4"}, "got 'audio.mp4': it has no video stream"),
        (SOURCE | {"video": "sound.wav"}, "got 'sound.wav': it has no video stream"),
        (SOURCE | {"video": "cut.mp4"}, "got 'cut.mp4': it is"),
        (SOURCE | {"video": "flat.mp4"}, "column video: leaves no height under 4096 pixels, got 64x8"),
        (GOOD | {"mask": "good.png"}, "column mask: needs a video in the same row: name one"),
        (SOURCE | {"mask": "wide.png"}, "column mask: must have the size of the video, 64x64, got 96x64"),
        (SOURCE | {"mask": "small.mp4"}, "column mask: must have the size of the video, 64x64, got 32x32"),
        (
            SOURCE | {"mask": "five.mp4"},
            "column mask: must be one image or have the video's 9 frames, got 5",
        ),
        (SOURCE | {"mask": "sound.wav"}, "column mask: must be a readable file, got 'sound.wav'"),
        (SOURCE | {"image": "good.png"}, "column image: excludes video in the same row: keep one of them"),
        (SOURCE | {"last_image": "good.png"}, "column last_image: excludes video in the same row"),
        (SOURCE | {"num_frames": 8}, "column num_frames: must be 4n+1"),
        (SOURCE | {"audio": "sound.wav"}, "column audio: model vace-1.3b takes no audio: leave it out"),
        (SOURCE | {"context_scale": 11}, "column context_scale: must be 0 to 10, got 11.0"),
        (SOURCE | {"context_scale": -0.5}, "column context_scale: must be 0 to 10, got -0.5"),
        (SOURCE | {"context_scale": "x"}, "column context_scale: must be a finite number, got 'x'"),
        (
            SOURCE | {"video_sampling": "first"},
            "column video_sampling: must be one of even, cut, got 'first'",
        ),
        (GOOD | {"video_sampling": "cut"}, "column video_sampling: needs a video in the same row: name one"),
        (GOOD | {"last_image": "wide.png"}, "column last_image: must have the aspect of image"),
        (GOOD | {"image": "thin.png"}, "column image: leaves no height under 4096 pixels, got 3000x10"),
        (GOOD | {"key_frames": [1]}, "column key_frames: needs key_images in the same row"),
        (GOOD | {"key_images": ["good2.png"]}, "column key_images: needs key_frames in the same row"),
        (
            GOOD | {"key_images": ["good2.png"], "key_frames": [1, 2]},
            "column key_frames: must have one entry per image of key_images",
        ),
        (
            GOOD | {"key_images": ["good2.png"], "key_frames": [5]},
            "column key_frames: must be -5 to 4, got 5",
        ),
        (
            GOOD | {"key_images": ["good2.png"], "key_frames": [0]},
            "column key_frames: must name each frame once (image is 0, last_image -1), got [0]",
        ),
        (
            GOOD | {"key_images": ["good2.png"], "key_frames": [-1], "last_image": "good2.png"},
            "column key_frames: must name each frame once (image is 0, last_image -1), got [-1]",
        ),
        (
            GOOD | {"key_images": ["none.png"], "key_frames": [1]},
            "column key_images: must be a readable file",
        ),
        (
            GOOD | {"key_images": [], "key_frames": []},
            "column key_images: must hold at least one image, got []",
        ),
        (
            GOOD | {"key_images": ["good.png"], "key_frames": ["x"]},
            "column key_frames: must be a whole number",
        ),
        (GOOD | {"reference_images": []}, "column reference_images: must hold at least one image, got []"),
        (
            GOOD | {"reference_images": "good.png"},
            "must be a list of URIs or of {bytes, path}, got 'good.png'",
        ),
        (
            GOOD | {"reference_images": ["good.png", "none.png"]},
            "column reference_images: must be a readable file, got 'none.png'",
        ),
    ],
}
"""Per model what a row says besides its id, and what its failure says."""

KEPT = {
    "t2v-1.3b": [{"prompt": "a"}, {"prompt": "a", "task": "t2i"}],
    "i2v-14b-480p": [GOOD],
    "flf2v-14b": [GOOD | {"last_image": "good2.png"}],
    "i2v-a14b": [GOOD | {"prompt": ""}, GOOD | {"last_image": "good2.png"}],
    "ti2v-5b": [GOOD | {"task": "ti2v"}, {"prompt": "a", "task": "ti2v"}],
    "vace-1.3b": [SOURCE, SOURCE | {"mask": "good.png"}, GOOD | {"last_image": "good2.png"}],
}
"""Good rows among them."""


@pytest.mark.parametrize("model", BAD)
def test_bad_rows_fail_by_name_and_the_others_render(run_cli, tiny, model):
    Path("tiny").symlink_to(tiny(model))
    bad = [{"id": f"bad-{number}"} | row for number, (row, _) in enumerate(BAD[model])]
    good = [{"id": f"good-{number}"} | row for number, row in enumerate(KEPT[model])]
    write_rows([*bad[:1], *good, *bad[1:]])
    counts = f"{len(bad)} of {len(bad) + len(good)} rows invalid"

    code, out, _ = run_cli("plan", "config.yaml")
    assert (code, counts in out) == (0, True), out
    assert f"{len(good)} to render of {len(good)}" in out
    assert not Path("out").exists()

    code, out, _ = run_cli("render", "config.yaml")
    failures = records("failures/*.json")
    assert code == 2
    assert set(failures) == {row["id"] for row in bad}
    expected = {f"bad-{number}": says for number, (_, says) in enumerate(BAD[model])}
    wrong = {
        id_: failures[id_]["message"] for id_ in expected if expected[id_] not in failures[id_]["message"]
    }
    assert wrong == {}
    assert {(record["class"], record["stage"]) for record in failures.values()} == {("input", "plan")}
    for number, row in enumerate([*bad[:1], *good, *bad[1:]]):
        if row in bad:
            assert failures[row["id"]]["message"].startswith(f'row {number} (id "{row["id"]}"), column ')
    assert set(records("clips/*/*/meta.json")) == {row["id"] for row in good}
    assert f"{len(good)} clips committed" in out
    assert f"{len(bad)} failed ({len(bad)} input)" in out


def test_a_row_has_all_its_problems(run_cli, tiny):
    Path("tiny").symlink_to(tiny("vace-1.3b"))
    row = {
        "id": "x",
        "prompt": "",
        "video": "none.mp4",
        "mask": "text.png",
        "num_frames": 6,
        "context_scale": 99,
    }
    write_rows([row])
    code, out, _ = run_cli("plan", "config.yaml")
    assert code == 0
    for column in ("prompt", "video", "mask", "num_frames", "context_scale"):
        assert out.count(f"column {column}: ") == 1


# Keys of the config


def refused(result, *words):
    code, _, err = result
    assert code == 1, err
    message = err[err.index("error:") :]
    assert [word for word in (*words, "(command line)") if word not in message] == [], message


@pytest.mark.parametrize(
    ("model", "override", "words"),
    [
        (
            "t2v-1.3b",
            "defaults.max_area=4096",
            ["defaults.max_area model t2v-1.3b takes no max_area: leave it out"],
        ),
        ("t2v-1.3b", "defaults.context_scale=1", ["defaults.context_scale model t2v-1.3b takes no"]),
        ("t2v-1.3b", "defaults.video_sampling=cut", ["defaults.video_sampling model t2v-1.3b takes no"]),
        ("t2v-1.3b", "sweep.max_area=[4096]", ["sweep.max_area model t2v-1.3b takes no max_area"]),
        ("t2v-1.3b", "sweep.context_scale=[1]", ["sweep.context_scale model t2v-1.3b takes no"]),
        ("vace-1.3b", "defaults.max_area=1", ["defaults.max_area must be 256 to 67108864 pixels, got 1"]),
        ("vace-1.3b", "defaults.max_area=x", ["defaults.max_area must be a whole number, got 'x'"]),
        ("vace-1.3b", "defaults.context_scale=11", ["defaults.context_scale must be 0 to 10, got 11"]),
        (
            "vace-1.3b",
            "defaults.context_scale=.nan",
            ["defaults.context_scale must be a finite number, got nan"],
        ),
        (
            "vace-1.3b",
            "defaults.video_sampling=all",
            ["defaults.video_sampling must be one of even, cut, got 'all'"],
        ),
        (
            "vace-1.3b",
            "defaults.task=i2v",
            ["defaults.task must be vace, the task of model vace-1.3b, got 'i2v'"],
        ),
        ("vace-1.3b", "defaults.image=good.png", ["defaults.image is not a known key"]),
        ("vace-1.3b", "sweep.context_scale=[1,50]", ["sweep.context_scale must be 0 to 10, got 50"]),
        ("vace-1.3b", "sweep.max_area=[]", ["sweep.max_area must be a list of at least one value"]),
        ("vace-1.3b", "sweep.image=[good.png]", ["sweep.image is not a column that can be swept"]),
        (
            "vace-1.3b",
            "sweep.video_sampling=[even,cut]",
            ["sweep.video_sampling is not a column that can be swept"],
        ),
        ("ti2v-5b", "defaults.size=48x64", ["defaults.size must have sides that are multiples of 32 pixels"]),
        (
            "ti2v-5b",
            "sweep.size=[64x64,80x64]",
            ["sweep.size must have sides that are multiples of 32", "'80x64'"],
        ),
        ("i2v-14b-480p", "defaults.prompt=''", ["defaults.prompt must not be blank"]),
    ],
)
def test_config(run_cli, tiny, model, override, words):
    Path("tiny").symlink_to(tiny(model))
    write_rows([SOURCE])
    refused(run_cli("plan", "config.yaml", override), *words)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("model", "row", "overrides", "ids"),
    [
        ("vace-1.3b", GOOD, ["sweep.max_area=[4096,1024]"], ["x#max_area=1024", "x#max_area=4096"]),
        (
            "vace-1.3b",
            {"prompt": "a"},
            ["sweep.context_scale=[0.5,1]"],
            ["x#context_scale=0.5", "x#context_scale=1"],
        ),
        ("i2v-a14b", {"image": "good.png"}, ["defaults.prompt=''"], ["x"]),
        ("ti2v-5b", GOOD, ["defaults.task=ti2v"], ["x"]),
    ],
)
def test_config_that_is_good(run_cli, tiny, model, row, overrides, ids):
    Path("tiny").symlink_to(tiny(model))
    write_rows([{"id": "x"} | row])
    code, _, err = run_cli("render", "config.yaml", *overrides)
    assert (code, sorted(records("clips/*/*/meta.json"))) == (0, ids), err


# Whole commands


def test_a_server_that_is_away_ends_the_command_as_infrastructure(run_cli, tiny):
    Path("tiny").symlink_to(tiny("i2v-14b-480p"))
    write_rows([GOOD | {"image": "http://127.0.0.1:9/x.png?token=secret"}])
    code, _, err = run_cli("plan", "config.yaml")
    assert code == 3
    assert "http://127.0.0.1:9/x.png: its server does not answer" in err
    assert "secret" not in err


def test_a_text_in_the_place_of_a_path_is_a_problem_of_its_row(run_cli, tiny):
    Path("tiny").symlink_to(tiny("i2v-14b-480p"))
    write_rows([GOOD, GOOD | {"image": "a cat walks along the beach. " * 20}])
    code, out, _ = run_cli("plan", "config.yaml")
    assert (code, "1 of 2 rows invalid" in out) == (0, True)


def test_a_long_thin_reference_is_refused_by_the_plan(run_cli, tiny):
    Path("tiny").symlink_to(tiny("vace-1.3b"))
    write_rows([{"prompt": "a", "reference_images": ["thin.png"]}])
    _, out, _ = run_cli("plan", "config.yaml")
    assert "column reference_images: " in out


def test_credentials_in_a_url_are_not_shown(run_cli, tiny):
    Path("tiny").symlink_to(tiny("i2v-14b-480p"))
    write_rows([GOOD | {"image": "nowhere://user:secret@host/x.png?token=secret"}])
    _, out, err = run_cli("plan", "config.yaml")
    assert "column image" in out
    assert "secret" not in out + err


def test_relative_paths_and_empty_cells_of_a_csv(run_cli, tiny):
    Path("tiny").symlink_to(tiny("ti2v-5b"))
    Path("rows.csv").write_text("id,prompt,image,max_area\nt,a,,\ni,a,good.png,\nj,a,good.png,1024\n")
    code, _, err = run_cli("render", "config.yaml", "manifest=rows.csv")
    metas = records("clips/*/*/meta.json")
    assert (code, {id_: meta["request"]["task"] for id_, meta in metas.items()}) == (
        0,
        {"t": "t2v", "i": "i2v", "j": "i2v"},
    ), err
    (item,) = metas["i"]["inputs"]["image"]
    assert item["uri"] == str(Path("good.png").absolute())
    assert metas["j"]["request"]["width"] == 32


def test_lists_in_a_csv_are_json(run_cli, tiny):
    Path("tiny").symlink_to(tiny("vace-1.3b"))
    lines = ["id,prompt,reference_images,key_images,key_frames"]
    lines += ['refs,a,"[""good.png"",""wide.png""]",,', 'keys,a,,"[""good.png""]",[2]', "bad,a,good.png,,"]
    Path("rows.csv").write_text("\n".join(lines) + "\n")
    code, out, _ = run_cli("plan", "config.yaml", "manifest=rows.csv")
    assert (code, "1 of 3 rows invalid" in out) == (0, True)
    assert "column reference_images: must be a list of URIs or of {bytes, path}, got 'good.png'" in out


def test_bytes_in_a_parquet_manifest(run_cli, tiny):
    Path("tiny").symlink_to(tiny("i2v-14b-480p"))
    content = Path("good.png").read_bytes()
    images = [{"bytes": content, "path": None}, {"bytes": content[:20], "path": "half.png"}]
    column = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    parquet.write_table(pa.table({"id": ["in", "bad"], "prompt": ["a"] * 2, "image": column}), "rows.parquet")
    code, out, _ = run_cli("plan", "config.yaml", "manifest=rows.parquet")
    assert (code, "1 to render of 1" in out, Path("out").exists()) == (0, True, False)
    code, _, _ = run_cli("render", "config.yaml", "manifest=rows.parquet")
    assert (code, list(records("clips/*/*/meta.json"))) == (2, ["in"])
    assert (
        "column image: must be a readable file, got 20 bytes: it is a damaged PNG"
        in records("failures/*.json")["bad"]["message"]
    )
    name = hashlib.sha256(content).hexdigest()
    assert (Path("out/inputs") / name).read_bytes() == content


def test_on_invalid_fail_names_the_first_bad_image(run_cli, tiny):
    Path("tiny").symlink_to(tiny("ti2v-5b"))
    write_rows([GOOD, GOOD | {"id": "x", "image": "none.png"}])
    code, _, err = run_cli("render", "config.yaml", "on_invalid=fail")
    assert code == 1
    assert 'row 1 (id "x"), column image: must be a readable file' in err
    assert records("clips/*/*/meta.json") == {}


def test_a_broken_photo_behind_a_good_header_fails_alone(run_cli, tiny):
    Path("tiny").symlink_to(tiny("ti2v-5b"))
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "JPEG")
    Path("half.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    write_rows([GOOD | {"id": "good"}, GOOD | {"id": "bad", "image": "half.jpg"}])
    code, out, _ = run_cli("plan", "config.yaml")
    assert (code, "2 to render of 2" in out) == (0, True)
    code, _, _ = run_cli("render", "config.yaml")
    (failure,) = records("failures/*.json").values()
    assert (code, failure["ids"], failure["class"], failure["stage"]) == (2, ["bad"], "input", "condition")
    assert f"image {Path('half.jpg').absolute()}: it is damaged" in failure["message"]
    assert list(records("clips/*/*/meta.json")) == ["good"]
    assert failure["attempts"] == 1


def test_the_plan_counts_rows_that_break_the_same_rule(run_cli, tiny):
    Path("tiny").symlink_to(tiny("ti2v-5b"))
    write_rows([GOOD | {"image": "none.png", "num_frames": 6}] * 30)
    _, out, _ = run_cli("plan", "config.yaml")
    assert "30 rows: column image: must be a readable file; the first is row 0 (" in out
    assert "30 rows: column num_frames: must be 4n+1 (5, 9, ..., 81); the first is row 0 (" in out
