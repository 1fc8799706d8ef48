"""Every way to steer a clip, from a manifest to files: two models, one run each, many kinds of rows."""

import hashlib
import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file

from wanray.config import load_config
from wanray.engine.job import execute
from wanray.engine.prepare import prepare
from wanray.errors import ExitCode
from wanray.storage import Store

SETTINGS = {
    "engine": "local",
    "run": "r",
    "numerics": {"dtype": "float32"},
    "defaults": {"size": "64x64", "num_frames": 5, "steps": 2},
}


def render(folder, checkpoint, rows, **settings):
    """Render rows; returns (summary, id -> meta, id -> failure)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = {"manifest": str(folder / "rows.jsonl"), "model": {"path": str(checkpoint)}}
    values |= SETTINGS | {"output": {"url": str(folder / "out"), "save_latents": True}} | settings
    (folder / "config.yaml").write_text(json.dumps(values))
    summary = execute(prepare(load_config(folder / "config.yaml", []), write=True))
    return summary, records(folder / "out", "clips/*/*/meta.json"), records(folder / "out", "failures/*.json")


def records(out, pattern):
    """id -> the record, which also says where it lies."""
    found = [json.loads(path.read_bytes()) | {"folder": path.parent} for path in out.glob(pattern)]
    return {id_: record for record in found for id_ in record["ids"]}


def latents_of(meta):
    return load_file(meta["folder"] / "latents.safetensors")["latents"]


def file_of(meta):
    """The clip's own file, checked against what meta.json says of it."""
    path = meta["folder"] / Path(meta["video"]["path"]).name
    data = path.read_bytes()
    assert meta["video"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert meta["video"]["bytes"] == len(data)
    return data


def check_movie(meta):
    """Frames, size and rate of the file are those of the request."""
    request = meta["request"]
    with av.open(io.BytesIO(file_of(meta))) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (request["width"], request["height"])
        assert float(stream.average_rate) == pytest.approx(request["fps"], rel=1e-3)
        assert sum(1 for _ in container.decode(stream)) == request["num_frames"]


def waves(number, width, height):
    """Smooth colours that wander with `number`, uint8 HWC."""
    row, column = np.mgrid[0:height, 0:width]
    parts = [row / 12 + number / 5, column / 15 - number / 7, (row + column) / 20 + number / 9]
    return (127 + 100 * np.sin(np.stack(parts, axis=-1))).astype(np.uint8)


def write_movie(path, frames, fps=16, tone_s=None):
    """h264, and AAC: silence, with a tone from the first to the second of `tone_s` seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(fps), options={"crf": "5"})
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = "yuv420p"
        sound = output.add_stream("aac", rate=48000, layout="mono") if tone_s else None
        for array in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        output.mux(stream.encode())
        if sound is not None:
            times_s = np.arange(round(48000 * len(frames) / fps)) / 48000
            samples = 0.5 * np.sin(2 * np.pi * 440 * times_s)
            samples[(times_s < tone_s[0]) | (times_s > tone_s[1])] = 0
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
            frame.rate, frame.pts = 48000, 0
            output.mux(sound.encode(frame))
            output.mux(sound.encode())


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Pictures, source videos and masks of every kind; a function from names to paths."""
    folder = tmp_path_factory.mktemp("media")
    for name, (width, height) in {"wide": (96, 64), "wide2": (48, 32), "square": (64, 64)}.items():
        Image.fromarray(waves(width, width, height)).save(folder / f"{name}.png")
    write_movie(folder / "source.mp4", [waves(number, 64, 64) for number in range(33)], tone_s=(0.5, 1.0))
    write_movie(folder / "short.mp4", [waves(number, 64, 64) for number in range(9)], tone_s=(0.25, 0.4))
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    write_movie(folder / "half.mp4", [np.roll(half, number, 1) for number in range(33)])
    Image.fromarray(half).save(folder / "half.png")
    return lambda name: str(folder / name)


# VACE: one run of all that it takes


@pytest.fixture(scope="module")
def vace(tiny, media, tmp_path_factory):
    """(summary, metas, failures) of a manifest with all inputs that VACE takes."""
    words = {"prompt": "a cat"}
    source = words | {"video": media("source.mp4"), "seed": 3}
    rows = [
        words | {"id": "text", "num_frames": 9, "size": "32x64", "solver": "dpm++", "steps": 1},
        words | {"id": "references", "reference_images": [media("wide.png"), media("square.png")], "seed": 7},
        words | {"id": "first", "image": media("wide.png"), "max_area": 96 * 64, "num_frames": 17},
        words | {"id": "last", "last_image": media("wide2.png"), "size": "48x32", "steps": 3},
        words | {"id": "both", "image": media("wide.png"), "last_image": media("wide2.png")},
        words
        | {
            "id": "keys",
            "key_images": [media("square.png"), media("wide2.png")],
            "key_frames": [1, -2],
            "num_frames": 9,
        },
        words | {"id": "one frame", "num_frames": 1, "image": media("square.png")},
        source | {"id": "video"},
        source | {"id": "capped", "num_frames": 9},
        source | {"id": "cut", "num_frames": 9, "fps": 8, "video_sampling": "cut"},
        source | {"id": "cut at full rate", "num_frames": 9, "fps": 16, "video_sampling": "cut"},
        source | {"id": "fast", "num_frames": 9, "fps": 16},
        source | {"id": "masked", "mask": media("half.mp4"), "num_frames": 9},
        source | {"id": "still mask", "mask": media("half.png"), "num_frames": 9},
        words
        | {"id": "whole", "video": media("short.mp4"), "seed": 3, "num_frames": 33, "context_scale": 0.5},
        words | {"id": "silent", "video": media("half.mp4"), "num_frames": 5},
        words
        | {
            "id": "everything",
            "video": media("short.mp4"),
            "mask": media("half.png"),
            "reference_images": [media("wide.png")],
            "context_scale": 0.5,
            "max_area": 32 * 32,
        },
    ]
    folder = tmp_path_factory.mktemp("vace")
    output = {"url": str(folder / "out"), "save_latents": True, "video": {"audio": True, "preset": "fast"}}
    defaults = SETTINGS["defaults"] | {"num_frames": None}
    (folder / "first").mkdir()
    rows = [{"num_frames": 5} | row if "video" not in row else row for row in rows]
    return render(folder, tiny("vace-1.3b"), rows, output=output, defaults=defaults)


SIZES = {
    "text": (32, 64, 9),
    "references": (64, 64, 5),
    "first": (96, 64, 17),
    "last": (48, 32, 5),
    "both": (80, 48, 5),
    "keys": (64, 64, 9),
    "one frame": (64, 64, 1),
    "video": (64, 64, 33),
    "capped": (64, 64, 9),
    "cut": (64, 64, 9),
    "cut at full rate": (64, 64, 9),
    "fast": (64, 64, 9),
    "masked": (64, 64, 9),
    "still mask": (64, 64, 9),
    "whole": (64, 64, 9),
    "silent": (64, 64, 5),
    "everything": (32, 32, 9),
}


def test_all_rows_of_vace_are_rendered(vace):
    summary, metas, failures = vace
    assert failures == {}
    assert (summary.exit_code, summary.committed) == (ExitCode.DONE, len(SIZES))
    assert set(metas) == set(SIZES)


@pytest.mark.parametrize("row", SIZES)
def test_a_clip_of_vace_is_what_its_meta_says(vace, row):
    meta = vace[1][row]
    request, video = meta["request"], meta["video"]
    assert (request["width"], request["height"], request["num_frames"]) == SIZES[row]
    assert (video["width"], video["height"], video["num_frames"]) == SIZES[row]
    assert request["task"] == "vace"
    check_movie(meta)
    assert latents_of(meta).shape == (
        16,
        (request["num_frames"] + 3) // 4,
        *(s // 8 for s in SIZES[row][1::-1]),
    )
    assert {"encode", "condition", "denoise", "decode"} <= set(meta["timings_s"])


def test_parameters_of_each_row_are_its_own(vace):
    requests = {id_: meta["request"] for id_, meta in vace[1].items()}
    assert (requests["text"]["solver"], requests["text"]["steps"]) == ("dpm++", 1)
    assert (requests["last"]["solver"], requests["last"]["steps"]) == ("unipc", 3)
    assert (requests["references"]["seed"], requests["video"]["seed"]) == (7, 3)
    assert requests["whole"]["context_scale"] == 0.5
    assert requests["keys"]["key_frames"] == [1, -2]
    assert len({requests[id_]["seed"] for id_ in ("text", "first", "last", "both", "keys")}) == 5


def test_meta_says_which_media_were_read(vace, media):
    metas = vace[1]
    assert metas["text"]["inputs"] == {}
    assert [item["uri"] for item in metas["references"]["inputs"]["reference_images"]] == [
        media("wide.png"),
        media("square.png"),
    ]
    for meta in metas.values():
        digests = {name: [item["sha256"] for item in items] for name, items in meta["inputs"].items()}
        assert digests == meta["request"]["inputs"]
        for item in (item for items in meta["inputs"].values() for item in items):
            assert hashlib.sha256(Path(item["uri"]).read_bytes()).hexdigest() == item["sha256"]


def test_a_source_plays_at_its_own_speed_and_says_what_was_dropped(vace):
    metas = vace[1]
    assert (metas["video"]["request"]["fps"], metas["video"]["notes"]) == (16.0, [])
    capped = metas["capped"]
    assert capped["notes"] == ["video: 9 of 33 frames at 16 fps are used (even)"]
    assert 9 / capped["request"]["fps"] == pytest.approx(32.5 / 16)
    assert metas["cut"]["request"]["fps"] == 8.0
    assert metas["cut"]["notes"] == ["video: 9 of 33 frames at 16 fps are used (cut)"]
    assert metas["whole"]["notes"] == []
    assert metas["fast"]["notes"] == [
        "video: 9 of 33 frames at 16 fps are used (even)",
        f"video: plays {16 / capped['request']['fps']:.2f} times as fast as its source",
        "audio is left out: the clip plays at another speed than its source",
    ]


def sound_of(meta):
    """(seconds of sound, when it begins to be heard, when it ends); None without a track."""
    with av.open(io.BytesIO(file_of(meta))) as container:
        if not container.streams.audio:
            return None
        rate = container.streams.audio[0].rate
        frames = [(frame.time, frame.to_ndarray()) for frame in container.decode(audio=0)]
    samples = np.concatenate([array for _, array in frames], axis=1)
    heard = np.flatnonzero((np.abs(samples) > 0.05).any(axis=0)) / rate + frames[0][0]
    return samples.shape[1] / rate, heard[0], heard[-1]


@pytest.mark.parametrize("row", ["video", "capped", "cut", "cut at full rate", "whole", "masked"])
def test_sound_is_in_step_with_the_picture_and_as_long(vace, row):
    request = vace[1][row]["request"]
    length_s = request["num_frames"] / request["fps"]
    start_s, end_s = (0.25, 0.4) if row == "whole" else (0.5, min(1.0, length_s))
    sound = sound_of(vace[1][row])
    assert sound == pytest.approx((length_s, start_s, end_s), abs=0.03)


def test_there_is_no_sound_where_it_would_be_out_of_step_or_there_is_none(vace):
    assert [sound_of(vace[1][row]) for row in ("fast", "silent", "text")] == [None, None, None]
    assert all("audio" not in note for note in vace[1]["silent"]["notes"] + vace[1]["text"]["notes"])


def test_each_input_changes_the_latents(vace):
    latents = {id_: latents_of(meta) for id_, meta in vace[1].items()}
    same_seed = ["capped", "cut", "cut at full rate", "masked", "still mask", "whole"]
    for index, one in enumerate(same_seed):
        for other in same_seed[index + 1 :]:
            assert not (latents[one] == latents[other]).all(), (one, other)


def test_the_same_command_again_renders_nothing(vace, tiny):
    out = next(iter(vace[1].values()))["folder"].parents[2]
    folder = out.parent
    job = prepare(load_config(folder / "config.yaml", ["run=again"]), write=True)
    assert (job.plan.counts.left, job.plan.counts.committed) == (0, len(SIZES))


# TI2V: text, image and stills in one run


@pytest.fixture(scope="module")
def ti2v(tiny, media, tmp_path_factory):
    """(summary, metas, failures) of all tasks of the 5B model, and of images as users have them."""
    folder = tmp_path_factory.mktemp("ti2v")
    words = {"prompt": "a dog", "seed": 5}
    image = words | {"task": "i2v", "max_area": 96 * 64, "num_frames": 5}
    rows = [
        words | {"id": "t2v", "num_frames": 9, "size": "32x64"},
        words | {"id": "t2v one frame", "num_frames": 1},
        words | {"id": "i2v", "image": media("wide.png"), "num_frames": 17, "fps": 12.5},
        words | {"id": "i2v alias", "task": "ti2v", "image": media("square.png"), "solver": "dpm++"},
        words | {"id": "t2i", "task": "t2i", "size": "96x64"},
        words | {"id": "t2i too", "task": "t2i", "seeds": [1, 2], "seed": None},
    ]
    for name in user_images(folder):
        rows.append(image | {"id": name, "image": str(folder / name)})
    return render(folder, tiny("ti2v-5b"), rows)


def user_images(folder):
    """Images as users have them; returns the names of their files."""
    smooth = Image.fromarray(waves(3, 96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", quality=90, exif=exif)
    pixels = Image.open(folder / "turned.jpg").transpose(Image.Transpose.ROTATE_270)
    Image.fromarray(np.asarray(pixels)).save(folder / "upright.png")
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1)))
    clear = smooth.convert("RGBA")
    clear.putalpha(alpha)
    clear.save(folder / "alpha.png")
    Image.alpha_composite(Image.new("RGBA", (96, 64), "white"), clear).convert("RGB").save(
        folder / "on white.png"
    )
    grey = smooth.convert("L")
    grey.save(folder / "grey.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "16 bit.png")
    grey.convert("RGB").save(folder / "grey as rgb.png")
    smooth.convert("CMYK").save(folder / "cmyk.jpg")
    smooth.convert("P").save(folder / "palette.png")
    smooth.save(folder / "moving.gif", save_all=True, append_images=[grey.convert("RGB")])
    smooth.save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) * 2 // 3])
    return (
        *("turned.jpg", "upright.png", "alpha.png", "on white.png", "grey.png", "16 bit.png"),
        *("grey as rgb.png", "cmyk.jpg", "palette.png", "moving.gif", "truncated.jpg"),
    )


STILLS = {"t2i": (96, 64), "t2i too#seed=1": (64, 64), "t2i too#seed=2": (64, 64)}
MOVIES = {
    "t2v": ("t2v", 32, 64, 9, 24.0),
    "t2v one frame": ("t2v", 64, 64, 1, 24.0),
    "i2v": ("i2v", 64, 64, 17, 12.5),
    "i2v alias": ("i2v", 64, 64, 5, 24.0),
}
USED = (
    *("turned.jpg", "upright.png", "alpha.png", "on white.png", "grey.png", "16 bit.png"),
    *("grey as rgb.png", "cmyk.jpg", "palette.png", "moving.gif"),
)


def test_only_the_broken_image_fails(ti2v):
    summary, metas, failures = ti2v
    assert set(metas) == {*STILLS, *MOVIES, *USED}
    assert set(failures) == {"truncated.jpg"}
    assert (summary.exit_code, summary.failed_by_class) == (ExitCode.FAILURES, {"input": 1})
    (failure,) = failures.values()
    assert (failure["class"], failure["stage"]) == ("input", "condition")
    assert "image " in failure["message"]
    assert "truncated.jpg: it is damaged" in failure["message"]
    assert failure["request"]["width"] == 96


@pytest.mark.parametrize("row", MOVIES)
def test_a_movie_of_ti2v_is_what_its_meta_says(ti2v, row):
    meta = ti2v[1][row]
    request = meta["request"]
    assert tuple(request[name] for name in ("task", "width", "height", "num_frames", "fps")) == MOVIES[row]
    check_movie(meta)
    assert ("image" in meta["inputs"]) == (request["task"] == "i2v")
    assert latents_of(meta).shape == (
        48,
        (request["num_frames"] + 3) // 4,
        request["height"] // 16,
        request["width"] // 16,
    )


@pytest.mark.parametrize("row", STILLS)
def test_an_image_of_a_text_is_a_png(ti2v, row):
    meta = ti2v[1][row]
    assert meta["request"]["task"] == "t2i"
    assert (meta["video"]["codec"], meta["video"]["num_frames"]) == ("png", 1)
    with Image.open(io.BytesIO(file_of(meta))) as image:
        assert (image.format, image.size) == ("PNG", STILLS[row])
    assert (meta["video"]["width"], meta["video"]["height"]) == STILLS[row]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("turned.jpg", "upright.png"),
        ("alpha.png", "on white.png"),
        ("grey.png", "grey as rgb.png"),
        ("16 bit.png", "grey.png"),
    ],
)
def test_images_that_look_the_same_render_the_same(ti2v, one, other):
    one, other = ti2v[1][one], ti2v[1][other]
    assert one["key"] != other["key"]
    assert (one["request"]["width"], one["request"]["height"]) == (96, 64)
    assert (latents_of(one) == latents_of(other)).all()


def test_images_that_look_different_render_differently(ti2v):
    latents = [
        latents_of(ti2v[1][name]) for name in ("upright.png", "on white.png", "grey.png", "moving.gif")
    ]
    assert all((one != other).any() for number, one in enumerate(latents) for other in latents[:number])


def test_what_the_author_should_know_is_noted(ti2v):
    assert ti2v[1]["moving.gif"]["notes"] == ["image: animated: the first of 2 frames is used"]
    assert all(meta["notes"] == [] for id_, meta in ti2v[1].items() if id_ != "moving.gif")


def test_the_first_latents_are_those_of_the_image(ti2v):
    one, other = (latents_of(ti2v[1][name]) for name in ("upright.png", "grey.png"))
    assert (one[:, 0] != other[:, 0]).any()
    again = latents_of(ti2v[1]["turned.jpg"])
    assert (one[:, 0] == again[:, 0]).all()


# Pictures inside the manifest


@pytest.mark.parametrize("place", ["local", "s3"])
def test_pictures_inside_a_parquet_file(tiny, media, tmp_path, request, place):
    content = Path(media("wide.png")).read_bytes()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": content, "path": "x.png"}, {"bytes": None, "path": media("square.png")}]
    images.append({"bytes": b"no picture", "path": None})
    table = pa.table({"id": ["in", "out", "bad"], "prompt": ["a"] * 3, "image": pa.array(images, struct)})
    parquet.write_table(table, tmp_path / "rows.parquet")
    url = request.getfixturevalue("s3_url") if place == "s3" else str(tmp_path / "out")
    values = SETTINGS | {
        "manifest": str(tmp_path / "rows.parquet"),
        "model": {"path": str(tiny("ti2v-5b"))},
        "output": {"url": url},
        "defaults": SETTINGS["defaults"] | {"steps": 1},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    store = Store.open(url)
    planned = prepare(load_config(tmp_path / "config.yaml", []), write=False)
    assert planned.plan.counts.left == 2
    assert store.names("") == [], "a plan writes nothing"
    summary = execute(prepare(load_config(tmp_path / "config.yaml", []), write=True))
    stored = f"inputs/{hashlib.sha256(content).hexdigest()}"
    assert (summary.committed, summary.failed, summary.invalid) == (2, 0, 1)
    assert store.read(stored) == content
    paths = [path for path in store.find("clips") if path.endswith("/meta.json")]
    metas = {meta["ids"][0]: meta for meta in map(json.loads, map(store.read, paths))}
    assert set(metas) == {"in", "out"}
    assert metas["in"]["inputs"]["image"] == [{"sha256": stored[7:], "uri": store.uri(stored)}]
    assert metas["out"]["inputs"]["image"][0]["uri"] == media("square.png")
    (failure,) = (json.loads(store.read(f"failures/{key}")) for key in store.names("failures"))
    assert failure["ids"] == ["bad"]
    assert "column image: must be a readable file, got 10 bytes: it is no image" in failure["message"]


# A file that changes between plan and render


def test_a_file_that_changed_or_went_after_the_plan(tiny, media, tmp_path):
    rows = []
    for name in ("kept", "changed", "gone"):
        (tmp_path / f"{name}.png").write_bytes(Path(media("square.png")).read_bytes() + name.encode())
        rows.append({"id": name, "prompt": "a", "image": str(tmp_path / f"{name}.png")})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = SETTINGS | {
        "manifest": str(tmp_path / "rows.jsonl"),
        "model": {"path": str(tiny("ti2v-5b"))},
        "output": {"url": str(tmp_path / "out")},
        "defaults": SETTINGS["defaults"] | {"steps": 1},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    job = prepare(load_config(tmp_path / "config.yaml", []), write=True)
    (tmp_path / "changed.png").write_bytes(b"other")
    (tmp_path / "gone.png").unlink()
    summary = execute(job)
    failures = records(tmp_path / "out", "failures/*.json")
    assert (summary.committed, set(failures)) == (1, {"changed", "gone"})
    assert {name: record["class"] for name, record in failures.items()} == {
        "changed": "input",
        "gone": "infrastructure",
    }
    assert f"{tmp_path}/changed.png" in failures["changed"]["message"]
    assert "has changed since it was planned" in failures["changed"]["message"]
    assert f"{tmp_path}/gone.png" in failures["gone"]["message"]
    assert "it is gone, or not on node" in failures["gone"]["message"]


# Other models, one run each


@pytest.mark.parametrize("mode", ["official", "diffusers"])
@pytest.mark.parametrize("name", ["i2v-14b-480p", "flf2v-14b", "i2v-a14b"])
def test_image_models_render_in_both_modes(tiny, media, tmp_path, name, mode):
    words = {"prompt": "a cat", "image": media("wide.png"), "size": "48x48"}
    last = {"last_image": media("wide2.png")}
    rows = {
        "i2v-14b-480p": [words | {"id": "size"}, words | {"id": "area", "size": None, "max_area": 6144}],
        "flf2v-14b": [words | last | {"id": "both"}],
        "i2v-a14b": [words | {"id": "size", "prompt": ""}, words | last | {"id": "both", "num_frames": 9}],
    }[name]
    summary, metas, failures = render(
        tmp_path,
        tiny(name),
        rows,
        numerics={"dtype": "float32", "mode": mode},
        defaults=SETTINGS["defaults"] | {"steps": 1},
    )
    assert (failures, summary.exit_code, len(metas)) == ({}, ExitCode.DONE, len(rows))
    for id_, meta in metas.items():
        check_movie(meta)
        size = (meta["request"]["width"], meta["request"]["height"])
        assert size == {"area": (96, 64)}.get(id_, (48, 48) if mode == "diffusers" else (48, 32))
        assert meta["request"]["task"] == ("flf2v" if id_ == "both" else "i2v")
