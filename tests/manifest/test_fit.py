"""What media decide: size, frames, fps, key; and rules between the media of a row."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wanray.config import DefaultsConfig, VideoConfig
from wanray.errors import StorageError
from wanray.manifest import Resolver, resolve
from wanray.manifest.arrays import table_of
from wanray.manifest.fit import Fitter, UnfitError, check_pairs, fit_row
from wanray.manifest.media import MediaOpener, Medium
from wanray.manifest.settings import job_values
from wanray.records import FORMAT_VERSION, Record, Request, canonical_json, content_key
from wanray.registry import DIFFUSERS_DEFAULTS, MODELS, TASKS, get_model
from wanray.sinks.video import encode_frames
from wanray.sizing import area_size, cover_fit, even_rate, vace_fit

SMALL = {"width": 64, "height": 64}


def image(width, height, name="i"):
    return Medium(name, f"/{name}.png", width, height)


def video(width, height, num_frames, fps=16.0, name="v"):
    return Medium(name, f"/{name}.mp4", width, height, num_frames, fps)


def fitter(model, mode="official"):
    found = get_model(model)
    return Fitter(found, mode, job_values(found.defaults, DefaultsConfig()))


def fitted(model, media, key_frames=(), mode="official", **values):
    """fit_row of a row with these media, where nothing else was asked for."""
    task = next(name for name in reversed(get_model(model).tasks) if set(TASKS[name].required) <= set(media))
    asked = {"width": 832, "height": 480, "num_frames": 81, "fps": 16.0, "max_area": None}
    asked |= {"task": task, "video_sampling": "even"} | values
    owned = {name: item if isinstance(item, tuple) else (item,) for name, item in media.items()}
    return fit_row(asked, owned, list(key_frames), fitter(model, mode))


def size_of(found):
    return found["width"], found["height"]


# Sizes that follow an image


@pytest.mark.parametrize("shape", [(832, 480), (100, 100), (33, 70), (1920, 1080), (500, 20)])
@pytest.mark.parametrize("model", ["i2v-14b-480p", "i2v-a14b", "flf2v-14b", "ti2v-5b", "vace-1.3b"])
def test_size_follows_the_image_under_the_asked_area(model, shape):
    media = {"image": image(*shape)} | ({"last_image": image(*shape)} if model == "flf2v-14b" else {})
    found = fitted(model, media)
    width, height = size_of(found)
    assert width % get_model(model).size_multiple_px == height % get_model(model).size_multiple_px == 0
    assert width * height <= 832 * 480
    assert (found["num_frames"], found["fps"]) == (81, 16.0)
    official = {
        "ti2v-5b": cover_fit(*shape, 832 * 480, 32).size,
        "vace-1.3b": vace_fit(*shape, 1, 1.0, 832 * 480).size,
    }
    assert (width, height) == official.get(model, area_size(*shape, 832 * 480))


def test_max_area_stands_for_the_size():
    media = {"image": image(96, 64)}
    assert size_of(fitted("i2v-14b-480p", media, max_area=96 * 64)) == (96, 64)
    assert size_of(fitted("i2v-14b-480p", media, **SMALL)) == (64, 48)
    assert size_of(fitted("i2v-14b-480p", {"image": image(64, 96)}, **SMALL)) == (48, 64)


@pytest.mark.parametrize("model", ["i2v-14b-480p", "ti2v-5b", "vace-1.3b"])
def test_a_size_is_exact_under_diffusers_but_an_area_follows_the_image(model):
    media = {"image": image(96, 64)}
    assert size_of(fitted(model, media, mode="diffusers", width=64, height=128)) == (64, 128)
    width, height = size_of(fitted(model, media, mode="diffusers", width=64, height=128, max_area=96 * 64))
    assert (width, height) == (96, 64)


def test_references_decide_no_size():
    references = {"reference_images": (image(10, 300, "a"), image(300, 10, "b"))}
    assert size_of(fitted("vace-1.3b", references, **SMALL)) == (64, 64)
    assert size_of(fitted("vace-1.3b", references | {"image": image(96, 64)}, max_area=6144)) == (96, 64)


def test_the_first_of_several_images_decides():
    first, last, key = image(96, 64, "f"), image(64, 96, "l"), image(64, 64, "k")
    area = {"max_area": 96 * 64}
    everything = {"image": first, "key_images": (key,), "last_image": last}
    assert size_of(fitted("vace-1.3b", everything, [3], **area)) == (96, 64)
    assert size_of(fitted("vace-1.3b", {"key_images": (key,), "last_image": last}, [3], **area)) == (64, 64)
    assert size_of(fitted("vace-1.3b", {"last_image": last}, **area)) == (64, 96)


@pytest.mark.parametrize(
    ("model", "shape", "says"),
    [
        ("i2v-14b-480p", (3000, 10), "leaves no height under 4096 pixels, got 3000x10: crop it"),
        ("i2v-14b-480p", (10, 3000), "leaves no width under 4096 pixels, got 10x3000: crop it"),
        ("ti2v-5b", (3000, 10), "leaves no height under 4096 pixels, got 3000x10: crop it"),
        (
            "ti2v-5b",
            (10, 3000),
            "leaves no (width|height) under 4096 pixels, got 10x3000: crop it",
        ),
        ("vace-1.3b", (3000, 10), "leaves no (width|height) under 4096 pixels, got 3000x10"),
        ("vace-1.3b", (15, 15), "under 4096 pixels, got 15x15"),
    ],
)
def test_an_image_that_leaves_no_pixels_is_named(model, shape, says):
    with pytest.raises(UnfitError, match=says) as raised:
        fitted(model, {"image": image(*shape)}, **SMALL)
    assert raised.value.column == "image"


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["i2v-14b-480p", "ti2v-5b", "vace-1.3b"]),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.integers(256, 1280 * 720),
)
def test_any_image_gives_a_size_under_the_area_or_is_refused(model, width, height, area):
    try:
        found = size_of(fitted(model, {"image": image(width, height)}, max_area=area))
    except UnfitError:
        return
    multiple = get_model(model).size_multiple_px
    assert min(found) >= multiple
    assert [side % multiple for side in found] == [0, 0]
    assert found[0] * found[1] <= area


def test_sides_that_follow_an_image_stay_in_the_range_of_sides():
    try:
        found = size_of(fitted("i2v-14b-720p", {"image": image(3000, 10)}, width=1280, height=720))
    except UnfitError:
        return
    assert max(found) <= 8192


def test_an_image_that_is_too_small_is_not_told_to_be_cropped():
    with pytest.raises(UnfitError) as raised:
        fitted("vace-1.3b", {"image": image(8, 8)})
    assert "crop" not in str(raised.value)


# Source videos


def test_a_source_video_decides_size_frames_and_fps():
    found = fitted("vace-1.3b", {"video": video(64, 48, 9, 12.0)}, num_frames=None, fps=None)
    assert found == {"width": 64, "height": 48, "num_frames": 9, "fps": 12.0}


@pytest.mark.parametrize(("source", "used"), [(1, 1), (2, 1), (4, 1), (5, 5), (8, 5), (33, 33), (36, 33)])
def test_frames_of_a_short_source_are_4n_plus_1(source, used):
    found = fitted("vace-1.3b", {"video": video(64, 48, source)}, num_frames=None, fps=None)
    assert found["num_frames"] == used
    assert found["fps"] == pytest.approx(even_rate(source, 16.0, used))


def test_num_frames_caps_a_source_and_keeps_its_speed():
    found = fitted("vace-1.3b", {"video": video(64, 48, 33)}, num_frames=17, fps=None)
    assert found["num_frames"] == 17
    assert 17 / found["fps"] == pytest.approx(33 / 16, rel=0.05), "about as long as the source"


def test_num_frames_does_not_stretch_a_source():
    assert fitted("vace-1.3b", {"video": video(64, 48, 9)}, num_frames=81)["num_frames"] == 9


def test_an_explicit_fps_is_kept():
    assert fitted("vace-1.3b", {"video": video(64, 48, 9)}, num_frames=None, fps=8.0)["fps"] == 8.0


def test_cut_takes_the_start_at_the_fps_of_the_row():
    asked = {"video_sampling": "cut", "num_frames": None, "fps": 8.0}
    found = fitted("vace-1.3b", {"video": video(64, 48, 33, 16.0)}, **asked)
    assert (found["num_frames"], found["fps"]) == (17, 8.0)
    found = fitted("vace-1.3b", {"video": video(64, 48, 33, 16.0)}, **asked | {"num_frames": 5})
    assert (found["num_frames"], found["fps"]) == (5, 8.0)


def test_cut_of_a_long_source_without_numbers_is_the_models_own_length():
    asked = {"video_sampling": "cut", "num_frames": None, "fps": None}
    found = fitted("vace-1.3b", {"video": video(832, 480, 300, 30.0)}, **asked)
    assert (found["num_frames"], found["fps"]) == (81, 16.0)


def test_an_explicit_area_shrinks_a_source():
    found = fitted("vace-1.3b", {"video": video(128, 64, 9)}, max_area=64 * 32, num_frames=None, fps=None)
    assert size_of(found) == (64, 32)


def test_a_source_under_diffusers_is_shrunk_into_the_size_and_rounded_down():
    asked = {"mode": "diffusers", "num_frames": None, "fps": None}
    assert size_of(fitted("vace-1.3b", {"video": video(96, 64, 9)}, **asked, **SMALL)) == (64, 32)
    assert size_of(fitted("vace-1.3b", {"video": video(70, 50, 9)}, **asked)) == (64, 48)
    assert size_of(fitted("vace-1.3b", {"video": video(96, 64, 9)}, **asked, max_area=4096)) == size_of(
        fitted("vace-1.3b", {"video": video(96, 64, 9)}, num_frames=None, fps=None, max_area=4096)
    )


def test_a_source_that_leaves_no_pixels_is_named():
    for mode in ("official", "diffusers"):
        with pytest.raises(UnfitError, match="got 640x8") as raised:
            fitted("vace-1.3b", {"video": video(640, 8, 9)}, mode=mode, num_frames=None)
        assert raised.value.column == "video"


# Pairs


@pytest.mark.parametrize(
    ("media", "problem"),
    [
        ({"video": video(64, 48, 9), "mask": video(64, 48, 9)}, None),
        ({"video": video(64, 48, 9), "mask": video(64, 48, 12, 30.0)}, None),
        ({"video": video(64, 48, 9), "mask": image(64, 48)}, None),
        ({"video": video(64, 48, 1), "mask": video(64, 48, 1)}, None),
        (
            {"video": video(64, 48, 9), "mask": video(48, 64, 9)},
            "mask: must have the size of the video, 64x48, got 48x64",
        ),
        (
            {"video": video(64, 48, 9), "mask": video(64, 48, 8)},
            "mask: must be one image or have the video's 9 frames, got 8",
        ),
        ({"image": image(96, 64), "last_image": image(48, 32)}, None),
        ({"image": image(960, 640), "last_image": image(957, 640)}, None),
        (
            {"image": image(96, 64), "last_image": image(64, 96)},
            "last_image: must have the aspect of image, 96x64, got 64x96: crop one",
        ),
        (
            {"image": image(100, 100), "last_image": image(102, 100)},
            "last_image: must have the aspect of image, 100x100, got 102x100: crop one",
        ),
    ],
)
def test_pairs(media, problem):
    found = check_pairs({7: {name: (item,) for name, item in media.items()}})
    assert [(item.row, f"{item.column}: {item.message}") for item in found] == (
        [(7, problem)] if problem else []
    )


@pytest.mark.parametrize(
    ("media", "frames", "says"),
    [
        ([], [0, 4, -2], None),
        ([], [-5], None),
        ([], [5], "must be -5 to 4, got 5"),
        ([], [-6], "must be -5 to 4, got -6"),
        ([], [1, -4], r"must name each frame once .*, got \[1, -4\]"),
        ([], [2, 2], r"must name each frame once .*, got \[2, 2\]"),
        (["image"], [0], r"must name each frame once .*, got \[0\]"),
        (["image"], [-5], r"must name each frame once .*, got \[-5\]"),
        (["image"], [4], None),
        (["last_image"], [4], r"must name each frame once .*, got \[4\]"),
        (["last_image"], [0], None),
        (["image", "last_image"], [1, 2, 3], None),
    ],
)
def test_key_frames(media, frames, says):
    keys = tuple(image(64, 64, f"k{frame}") for frame in frames)
    row = {"key_images": keys} | {name: image(64, 64, name) for name in media}
    if says is None:
        assert fitted("vace-1.3b", row, frames, num_frames=5)["num_frames"] == 5
    else:
        with pytest.raises(UnfitError, match=says) as raised:
            fitted("vace-1.3b", row, frames, num_frames=5)
        assert raised.value.column == "key_frames"


def test_first_and_last_image_need_two_frames():
    row = {"image": image(64, 64), "last_image": image(64, 64, "l")}
    with pytest.raises(UnfitError):
        fitted("vace-1.3b", row, num_frames=1)


# From files to requests


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    for name, (width, height) in {"wide": (96, 64), "square": (64, 64), "wide2": (48, 32)}.items():
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
    Image.open(folder / "wide.png").save(folder / "copy.png")
    (folder / "same.png").write_bytes((folder / "wide.png").read_bytes())
    (folder / "video.mp4").write_bytes(encoded(random, 9))
    return folder


def encoded(random, num_frames):
    frames = random.integers(0, 256, (num_frames, 64, 64, 3), np.uint8)
    (content,) = encode_frames(frames, 16.0, VideoConfig(crf=1), {}).files.values()
    return content


NUMERICS = {"mode": "official", "dtype": "bfloat16"}


def resolver_of(name, mode="official", sweep=None, **defaults):
    model = get_model(name)
    return Resolver(
        model=model,
        model_json={"name": name, "digest": "d" * 64},
        numerics=NUMERICS | {"mode": mode},
        official=model.defaults if mode == "official" else replace(DIFFUSERS_DEFAULTS, shift=3.0),
        defaults=DefaultsConfig(**defaults),
        sweep=sweep or {},
        keep=lambda sha256, content: f"kept/{sha256}",
    )


def plan(name, *rows, **settings):
    """The pieces' plan rows and problems of rows as dicts, or of a table."""
    table = rows[0] if isinstance(rows[0], pa.Table) else table_of(list(rows))
    (piece,) = resolve(iter([table]), resolver_of(name, **settings))
    return piece.requests.to_pylist(), [str(problem) for problem in piece.problems]


def test_requests_carry_digests_and_plans_carry_places(media):
    row = {"prompt": "a", "reference_images": [str(media / "wide.png"), str(media / "square.png")]}
    ((planned,), problems) = plan("vace-1.3b", row | {"image": str(media / "same.png")})
    assert problems == []
    digests = [hashlib.sha256((media / name).read_bytes()).hexdigest() for name in ("wide.png", "square.png")]
    record = Record.from_plan(planned)
    assert record.request.inputs == {"image": (digests[0],), "reference_images": tuple(digests)}
    assert set(record.sources) == set(digests)
    assert record.sources[digests[1]] == str(media / "square.png")


def test_equal_content_elsewhere_is_the_same_request_and_other_content_is_not(media):
    rows = [
        {"prompt": "a", "image": str(media / f"{name}.png")} for name in ("wide", "same", "copy", "square")
    ]
    planned, problems = plan("i2v-14b-480p", *rows)
    assert problems == []
    keys = [row["key"] for row in planned]
    assert keys[0] == keys[1]
    assert (media / "copy.png").read_bytes() == (media / "wide.png").read_bytes() or keys[2] != keys[0]
    assert keys[3] != keys[0]
    assert len({row["request"] for row in planned}) == len(set(keys))


def test_order_of_references_is_part_of_the_key(media):
    paths = [str(media / f"{name}.png") for name in ("wide", "square")]
    planned, _ = plan(
        "vace-1.3b", *({"prompt": "a", "reference_images": order} for order in (paths, paths[::-1]))
    )
    assert planned[0]["key"] != planned[1]["key"]


def test_relative_paths_are_made_absolute(media, monkeypatch):
    monkeypatch.chdir(media)
    ((planned,), problems) = plan("i2v-14b-480p", {"prompt": "a", "image": "wide.png"})
    assert problems == []
    assert list(json.loads(planned["sources"]).values()) == [str(media / "wide.png")]


def test_bytes_and_path_of_the_same_picture_are_one_request(media):
    content = (media / "wide.png").read_bytes()
    images = [
        {"bytes": content, "path": None},
        {"bytes": content, "path": "name-only.png"},
        {"bytes": None, "path": str(media / "wide.png")},
    ]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"prompt": ["a"] * 3, "image": pa.array(images, struct)})
    planned, problems = plan("i2v-14b-480p", table)
    assert problems == []
    assert len({row["key"] for row in planned}) == 1
    digest = hashlib.sha256(content).hexdigest()
    assert [json.loads(row["sources"])[digest] for row in planned] == [
        *[f"kept/{digest}"] * 2,
        str(media / "wide.png"),
    ]


def test_empty_bytes_beside_a_path_mean_the_path(media):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": b"", "path": str(media / "wide.png")}], struct)
    assert plan("i2v-14b-480p", pa.table({"prompt": ["a"], "image": images}))[1] == []


def test_only_bytes_that_can_be_used_are_kept():
    kept = []
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": b"no picture", "path": None}], struct)})
    MediaOpener(lambda sha256, content: kept.append(sha256) or "kept").open(table)
    assert kept == []


def test_a_file_that_changes_between_two_plans_of_one_process_is_read_again(media):
    path = media / "changing.png"
    keys = []
    for name in ("wide", "square"):
        path.write_bytes((media / f"{name}.png").read_bytes())
        ((planned,), _) = plan("i2v-14b-480p", {"prompt": "a", "image": str(path)})
        keys.append(planned["key"])
    assert keys[0] != keys[1]


def test_shift_goes_by_the_area_that_was_asked_for(media):
    row = {"prompt": "a", "image": str(media / "wide.png")}
    rows = [row, row | {"size": "480x832"}, row | {"max_area": 832 * 480}, row | {"size": "64x64"}]
    rows += [row | {"shift": 7.5}]
    planned, _ = plan("i2v-14b-480p", *rows)
    assert [json.loads(item["request"])["shift"] for item in planned] == [3.0, 3.0, 3.0, 5.0, 7.5]
    ((planned,), _) = plan("i2v-14b-480p", row, shift=6.0)
    assert json.loads(planned["request"])["shift"] == 6.0
    planned, _ = plan("i2v-14b-480p", row, sweep={"size": ["832x480", "64x64"], "steps": [3]})
    assert [json.loads(item["request"])["shift"] for item in planned] == [3.0, 5.0]


def test_a_sweep_of_areas(media):
    row = {"id": "x", "prompt": "a", "image": str(media / "wide.png")}
    planned, problems = plan("i2v-14b-480p", row, sweep={"max_area": [64 * 64, 96 * 64]})
    assert problems == []
    assert [(item["ids"], item["width"], item["height"]) for item in planned] == [
        (["x#max_area=4096"], 64, 48),
        (["x#max_area=6144"], 96, 64),
    ]


def test_a_size_of_the_row_beats_an_area_of_the_config(media):
    row = {"prompt": "a", "image": str(media / "wide.png")}
    planned, _ = plan("i2v-14b-480p", row, row | {"size": "64x64"}, row | {"max_area": 4096}, max_area=6144)
    assert [(item["width"], item["height"]) for item in planned] == [(96, 64), (64, 48), (64, 48)]


def test_a_swept_size_beats_an_area_of_the_config(media):
    row = {"prompt": "a", "image": str(media / "wide.png")}
    planned, _ = plan("i2v-14b-480p", row, sweep={"size": ["64x64", "832x480"]}, max_area=6144)
    assert len({item["key"] for item in planned}) == 2


def test_an_area_beats_a_size_for_what_follows_an_image_and_means_nothing_else(media):
    """Both may stand in one row: official calls have both."""
    both = {"prompt": "a", "width": 64, "height": 48, "max_area": 6144}
    wide = str(media / "wide.png")
    (follows,), problems = plan("i2v-14b-480p", {"image": wide, **both})
    (exact,), others = plan("vace-1.3b", {"reference_images": [wide], **both})
    assert problems == others == []
    assert follows["width"] * follows["height"] > 64 * 48
    assert (exact["width"], exact["height"]) == (64, 48)


@pytest.mark.parametrize("settings", [{"num_frames": 1}, {"sweep": {"num_frames": [1]}}])
def test_two_images_need_frames_between_them_whoever_says_how_many(media, settings):
    row = {"prompt": "a", "image": str(media / "wide.png"), "last_image": str(media / "wide2.png")}
    planned, problems = plan("flf2v-14b", row, **settings)
    assert (planned, len(problems)) == ([], 1)


def test_combinations_that_fit_are_rendered(media):
    row = {"prompt": "a", "key_images": [str(media / "wide.png")], "key_frames": [8]}
    planned, problems = plan("vace-1.3b", row, sweep={"num_frames": [5, 9]})
    assert (len(planned), len(problems)) == (1, 1)


@pytest.mark.parametrize("name", ["x" * 300, f"data:image/png;base64,{'A' * 5000}"])
def test_a_name_that_no_file_can_have_is_a_problem_of_its_row(media, name):
    good = {"prompt": "a", "image": str(media / "wide.png")}
    planned, problems = plan("i2v-14b-480p", good, {"prompt": "a", "image": name})
    assert (len(planned), len(problems)) == (1, 1)


AWAY = "http://127.0.0.1:9/x.png"


def test_a_server_that_is_away_costs_its_rows_and_no_others(media):
    rows = [{"prompt": "a", "image": url} for url in (str(media / "wide.png"), AWAY)]
    planned, (problem,) = plan("i2v-14b-480p", *rows)
    assert len(planned) == 1
    assert f"{AWAY}: its server does not answer" in problem


def test_a_store_of_all_media_that_is_away_ends_the_plan_by_name():
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9/x\.png: its server does not answer"):
        plan("i2v-14b-480p", {"prompt": "a", "image": AWAY})


def test_a_password_in_a_url_is_refused_and_not_repeated(media):
    _, (problem,) = plan("i2v-14b-480p", {"prompt": "a", "image": "https://me:secret@host/x.png?sig=secret"})
    assert "its URL holds a password" in problem
    assert "secret" not in problem


def test_media_that_a_model_does_not_take_are_not_opened(media):
    _, (problem,) = plan("t2v-1.3b", {"prompt": "a", "image": f"{AWAY}?sig=secret"})
    assert f"model t2v-1.3b takes no image: leave it out, got '{AWAY}'" in problem


def test_problems_of_media_stay_with_their_rows(media):
    good = {"prompt": "a", "image": str(media / "wide.png")}
    rows = [good, good | {"image": "none.png"}, good, good | {"max_area": 256}, good | {"num_frames": 4}]
    planned, problems = plan("i2v-14b-480p", *rows)
    assert [row["row"] for row in planned] == [0, 2]
    assert [problem.split(":")[0] for problem in problems] == [
        'row 1 (id "row-0000001"), column image',
        'row 3 (id "row-0000003"), column image',
        'row 4 (id "row-0000004"), column num_frames',
    ]


def test_a_missing_reference_is_named_with_its_path(media):
    row = {"prompt": "a", "reference_images": [str(media / "wide.png"), "gone/ref.png"]}
    planned, (problem,) = plan("vace-1.3b", row)
    assert planned == []
    assert "column reference_images: must be a readable file, got 'gone/ref.png'" in problem
    assert "does not exist" in problem


def test_seeds_and_sweeps_share_the_media(media):
    row = {"id": "x", "prompt": "a", "image": str(media / "wide.png"), "seeds": [1, 2]}
    planned, _ = plan("i2v-14b-480p", row, sweep={"steps": [2, 3]})
    assert len({item["key"] for item in planned}) == 4
    assert len({item["sources"] for item in planned}) == 1
    assert len({canonical_json(json.loads(item["request"])["inputs"]) for item in planned}) == 1


# Keys


def rows_of(media):
    """Rows of VACE with any inputs, as a hypothesis strategy."""
    pictures = st.sampled_from([str(media / name) for name in ("wide.png", "same.png", "wide2.png")])
    source = st.fixed_dictionaries(
        {"video": st.just(str(media / "video.mp4"))},
        optional={
            "mask": st.sampled_from([str(media / name) for name in ("square.png", "video.mp4")]),
            "video_sampling": st.sampled_from(["even", "cut"]),
        },
    )
    images = st.fixed_dictionaries({}, optional={"image": pictures, "last_image": pictures})
    keys = st.lists(st.integers(1, 3), unique=True, max_size=3).flatmap(
        lambda frames: st.fixed_dictionaries(
            {
                "key_frames": st.just(frames),
                "key_images": st.lists(pictures, min_size=len(frames), max_size=len(frames)),
            }
            if frames
            else {}
        )
    )
    common = st.fixed_dictionaries(
        {"prompt": st.sampled_from(["a", "é\n"]), "num_frames": st.integers(2, 5).map(lambda n: 4 * n + 1)},
        optional={
            "reference_images": st.lists(pictures, min_size=1, max_size=3),
            "context_scale": st.floats(0, 10),
            "max_area": st.integers(32 * 32, 96 * 96),
            "fps": st.floats(1, 60),
            "seed": st.integers(0, 2**63 - 1),
        },
    )
    either = source | st.builds(lambda one, other: one | other, images, keys)
    return st.builds(lambda one, other: one | other, common, either)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_json_keys_and_derived_seeds_are_those_of_request(media, data):
    rows = data.draw(st.lists(rows_of(media), min_size=1, max_size=4))
    planned, problems = plan("vace-1.3b", *rows)
    assert problems == []
    head = {"name": "vace-1.3b", "digest": "d" * 64}
    for row, item in zip(rows, planned, strict=True):
        request = Request.from_json(item["request"])
        assert request.to_json() == item["request"]
        assert content_key(item["request"], head, NUMERICS) == item["key"]
        given_media = {name: row[name] for name in row if name in ("image", "last_image", "video", "mask")}
        given_media |= {name: row[name] for name in ("key_images", "reference_images") if name in row}
        assert request.inputs == {name: digests(value) for name, value in given_media.items()}
        assert request.key_frames == tuple(row.get("key_frames", ()))
        assert request.context_scale == row.get("context_scale", 1.0)
        if "seed" not in row:
            rest = {name: value for name, value in json.loads(item["request"]).items() if name != "seed"}
            whole = {"format": FORMAT_VERSION, "model": head, "numerics": NUMERICS, "request": rest}
            seed = int.from_bytes(hashlib.sha256(canonical_json(whole).encode()).digest()[:4], "big")
            assert request.seed == seed


def digests(value):
    paths = value if isinstance(value, list) else [value]
    return tuple(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths)


def test_keys_tell_what_was_asked_of_a_source(media):
    row = {"prompt": "a", "seed": 1, "video": str(media / "video.mp4")}
    changes = [
        {},
        {"video_sampling": "cut", "fps": 8},
        {"context_scale": 0.5},
        {"num_frames": 5},
        {"max_area": 1024},
    ]
    changes += [{"mask": str(media / "square.png")}]
    planned, problems = plan("vace-1.3b", *(row | change for change in changes))
    assert problems == []
    assert len({item["key"] for item in planned}) == len(changes)


def test_every_model_with_images_plans_its_tasks(media):
    for model in MODELS.values():
        for task in model.tasks:
            required = {name: str(media / "wide.png") for name in TASKS[task].required}
            planned, problems = plan(model.name, {"prompt": "a", "task": task} | required)
            assert problems == []
            assert json.loads(planned[0]["request"])["task"] == task


# Anything at all


def anything(media):
    """Rows with any value in any column that steers a clip, as a hypothesis strategy."""
    files = [str(media / name) for name in ("wide.png", "square.png", "video.mp4", "none.png")]
    odd = st.sampled_from([*files, "", None, 5, 1.5, True, [], {}, {"path": files[0]}, {"path": None}, "x\0"])
    listed = st.lists(odd, max_size=3) | odd | st.just(json.dumps(files[:2]))
    whole = st.integers(-6, 20) | st.sampled_from([None, 2**70, "5", "x", 0.5, [1]])
    return st.fixed_dictionaries(
        {"prompt": st.sampled_from(["a", "", None])},
        optional={
            **dict.fromkeys(("image", "last_image", "video", "mask", "audio", "pose_video"), odd),
            **dict.fromkeys(("key_images", "reference_images"), listed),
            "key_frames": st.lists(st.integers(-6, 20), max_size=3) | st.lists(whole, max_size=2) | whole,
            "task": st.sampled_from([*TASKS, "ti2v", "", None, 3]),
            "video_sampling": st.sampled_from(["even", "cut", "", None, 1]),
            "context_scale": st.floats() | whole,
            "max_area": st.sampled_from([256, 1024, 6144, 2**26, 2**40, None, "x"]),
            "num_frames": whole,
            "size": st.sampled_from(["64x64", "16x8192", "72x64", "x", None]),
            "seeds": st.sampled_from([[1, 2], [], None]),
        },
    )


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_row_is_planned_or_refused_by_name(media, data):
    model = data.draw(st.sampled_from(sorted(MODELS)))
    rows = data.draw(st.lists(anything(media), min_size=1, max_size=4))
    rows = [{"id": f"{number}"} | row for number, row in enumerate(rows)]
    mode = data.draw(st.sampled_from(["official", "diffusers"]))
    planned, problems = plan(model, *rows, mode=mode)
    good = {item["ids"][0].split("#")[0] for item in planned}
    bad = {problem.split('"')[1] for problem in problems}
    assert good | bad == {row["id"] for row in rows}
    assert not good & bad
    for item in planned:
        request = Request.from_json(item["request"])
        found = get_model(model)
        assert request.task in found.tasks
        assert request.width % found.size_multiple_px == request.height % found.size_multiple_px == 0
        assert request.num_frames % found.temporal_stride == 1
        assert set(TASKS[request.task].required) <= set(request.inputs) <= found.inputs
        assert len(request.key_frames) == len(request.inputs.get("key_images", ()))
        assert {digest for all_ in request.inputs.values() for digest in all_} == set(
            json.loads(item["sources"])
        )
