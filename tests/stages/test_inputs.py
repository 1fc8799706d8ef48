"""From planned media to decoded arrays and conditions: upright, unchanged, the right frames, made once."""

import io
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from wanray.checkpoint import open_checkpoint
from wanray.config import MediaConfig
from wanray.errors import InfrastructureError, InputError
from wanray.media import digest, probe_image, probe_video
from wanray.models.conditions import ConditionEncoder
from wanray.records import Record, Request
from wanray.registry import Guidance
from wanray.stage import Worker
from wanray.stages.condition import Condition
from wanray.stages.configs import ConditionConfig
from wanray.stages.fetch import fetch
from wanray.stages.inputs import frame_ids, read_inputs, speed
from wanray.stages.payload import Payload

REQUEST = Request(
    task="i2v", prompt="a", negative_prompt="b", width=32, height=32, num_frames=5, fps=16.0,
    seed=1, steps=1, shift=5.0, guidance=Guidance(high=5.0, low=5.0), solver="unipc",
)  # fmt: skip
VIDEO = replace(REQUEST, task="vace", context_scale=1.0, video_sampling="even")
PAYLOAD = Payload(torch.zeros(1, 2), torch.zeros(1, 2)).pack()
"""What the encoder of texts hands on."""
ORIENTATION = 0x0112


def silent(step, total):
    """A report that nobody reads."""


def place(folder, **media):
    """(inputs, sources) of media given as bytes or lists of bytes, stored in `folder`."""
    inputs, sources = {}, {}
    for column, given in media.items():
        contents = given if isinstance(given, list) else [given]
        for content in contents:
            path = folder / digest(content)[:16]
            path.write_bytes(content)
            sources[digest(content)] = str(path)
        inputs[column] = tuple(digest(content) for content in contents)
    return inputs, sources


def read(folder, request=REQUEST, **media):
    """read_inputs of a request with these media."""
    inputs, sources = place(folder, **media)
    return read_inputs(replace(request, inputs=inputs), sources)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width=24, height=16, seed=0):
    """Smooth colours without symmetry, so that JPEG keeps them."""
    row, column = np.mgrid[0:height, 0:width]
    waves = [40 + row * 9 % 200, 30 + column * 8 % 200, 20 + (row + 2 * column + 10 * seed) * 3 % 200]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def movie(frames, fps=16, kind="mp4"):
    """A lossless video of RGB frames."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as output:
        stream = output.add_stream("libx264rgb", rate=Fraction(fps), options={"qp": "0"})
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = "rgb24"
        for array in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def numbered(num_frames, size=32):
    """Frames that each have one colour: their number."""
    return [np.full((size, size, 3), 5 * number, np.uint8) for number in range(num_frames)]


def numbers(frames):
    return [int(frame[0, 0, 0]) // 5 for frame in frames]


# Images


def test_images_come_in_the_order_of_the_row(tmp_path):
    pictures = [picture(seed=seed) for seed in range(3)]
    contents = [saved(item) for item in pictures]
    found, notes = read(tmp_path, image=contents[0], reference_images=[contents[2], contents[1], contents[2]])
    assert notes == ()
    np.testing.assert_array_equal(found.images["image"][0], np.asarray(pictures[0]))
    for array, number in zip(found.images["reference_images"], (2, 1, 2), strict=True):
        np.testing.assert_array_equal(array, np.asarray(pictures[number]))
    assert found.frames is found.mask is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_equals_the_upright_one(tmp_path, orientation):
    upright = picture(24, 16)
    turn = {
        1: (),
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.TRANSPOSE,),
        6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.TRANSVERSE,),
        8: (Image.Transpose.ROTATE_270,),
    }[orientation]
    stored = upright
    for step in turn:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    # lossless, so that equal means equal
    turned = saved(stored, "WEBP", lossless=True, exif=exif)
    plain = saved(upright, "PNG")
    assert digest(turned) != digest(plain)
    info = probe_image(turned)
    assert (info.width, info.height) == upright.size
    one, other = (read(tmp_path, image=content)[0].images["image"][0] for content in (turned, plain))
    np.testing.assert_array_equal(one, other)


def test_a_turned_jpeg_equals_its_decoded_and_turned_pixels(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = saved(picture(24, 16).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    pixels = Image.open(io.BytesIO(content)).transpose(Image.Transpose.ROTATE_270)
    upright = saved(Image.fromarray(np.asarray(pixels)))
    one, other = (read(tmp_path, image=item)[0].images["image"][0] for item in (content, upright))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (16, 24, 3)


KINDS = {
    "grey": (saved(picture().convert("L")), picture().convert("L").convert("RGB")),
    "palette": (saved(picture().convert("P")), picture().convert("P").convert("RGB")),
    "16 bit": (
        saved(Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)),
        picture().convert("L").convert("RGB"),
    ),
    "one bit": (saved(picture().convert("1")), picture().convert("1").convert("RGB")),
    "CMYK tiff": (saved(picture().convert("CMYK"), "TIFF"), picture().convert("CMYK").convert("RGB")),
    "bmp": (saved(picture(), "BMP"), picture()),
    "opaque alpha": (saved(picture().convert("RGBA")), picture()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(tmp_path, kind):
    content, expected = KINDS[kind]
    found, notes = read(tmp_path, image=content)
    np.testing.assert_array_equal(found.images["image"][0], np.asarray(expected))
    assert found.images["image"][0].dtype == np.uint8
    assert notes == ()


def test_what_is_transparent_is_white(tmp_path):
    image = picture().convert("RGBA")
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, 12:] = 255
    image.putalpha(Image.fromarray(alpha))
    found, _ = read(tmp_path, image=saved(image))
    array = found.images["image"][0]
    assert (array[:, :12] == 255).all()
    np.testing.assert_array_equal(array[:, 12:], np.asarray(picture())[:, 12:])


def test_of_an_animation_the_first_frame_is_used_and_noted(tmp_path):
    frames = [picture(seed=seed).convert("P") for seed in range(3)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found, notes = read(tmp_path, image=content, reference_images=[saved(picture()), content])
    assert notes == (
        "image: animated: the first of 3 frames is used",
        "reference_images: animated: the first of 3 frames is used",
    )
    first = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(found.images["image"][0], first)


# What went wrong since the plan


@pytest.mark.parametrize("column", ["image", "last_image", "key_images", "reference_images", "video", "mask"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_medium_that_changed_or_went_is_named(tmp_path, column, damage):
    request, media = REQUEST, {}
    if column in ("video", "mask"):
        request, media = VIDEO, {"video": movie(numbered(5))}
    content = saved(picture(32, 32)) if column != "video" else media["video"]
    inputs, sources = place(tmp_path, **media | {column: content})
    path = tmp_path / digest(content)[:16]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(saved(picture(32, 32, seed=9)))
    kind = InputError if damage == "changed" else InfrastructureError
    with pytest.raises(kind) as raised:
        read_inputs(replace(request, inputs=inputs), sources)
    message = str(raised.value)
    assert column in message
    assert str(path) in message
    words = "has changed since it was planned" if damage == "changed" else "it is gone, or not on node"
    assert words in message


def test_a_link_that_was_changed_since_the_plan_does_not_leave_the_root(tmp_path):
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_bytes(b"secret")
    rules = MediaConfig(allow_roots=[str(root)])
    (root / "a").write_bytes(b"secret")
    assert fetch("image", str(root / "a"), digest(b"secret"), rules) == b"secret"
    (root / "a").unlink()
    (root / "a").symlink_to(secret)
    with pytest.raises(InputError, match=r"image .*root/a: it is outside .*media\.allow_roots"):
        fetch("image", str(root / "a"), digest(b"secret"), rules)


def test_what_came_inside_the_manifest_is_read_wherever_the_output_lies(tmp_path):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / digest(b"a")).write_bytes(b"a")
    uri = f"{tmp_path}/inputs/{digest(b'a')}"
    assert fetch("image", uri, digest(b"a"), MediaConfig(allow_roots=[], allow_schemes=["s3"])) == b"a"


def test_a_truncated_photo_is_named(tmp_path):
    content = saved(picture(200, 100), "JPEG")
    content = content[: len(content) // 2]
    assert probe_image(content).width == 200, "the header is fine"
    with pytest.raises(InputError, match=rf"image {tmp_path}/\w+: it is damaged"):
        read(tmp_path, image=content)


@pytest.mark.parametrize("column", ["video", "mask"])
def test_a_source_that_is_damaged_behind_its_first_frame_is_named(tmp_path, column):
    random = np.random.default_rng(0)
    whole = movie([random.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(9)])
    broken = bytearray(whole)
    middle = (whole.index(b"mdat") + len(whole)) // 2
    broken[middle : middle + 6000] = bytes(6000)
    assert probe_video(bytes(broken)).num_frames == 9, "the plan sees nothing wrong"
    media = {"video": whole} | {column: bytes(broken)}
    found, _ = read(tmp_path, VIDEO, **media)
    with pytest.raises(InputError, match=rf"{column} {tmp_path}/\w+: it is damaged"):
        list(found.frames if column == "video" else found.mask)


# Frames of a source


def test_even_frames_are_spread_over_the_whole_source(tmp_path):
    content = movie(numbered(17))
    found, notes = read(tmp_path, VIDEO, video=content)
    assert numbers(found.frames) == [0, 4, 8, 12, 16]
    info = probe_video(content)
    assert notes[0] == "video: 5 of 17 frames at 16 fps are used (even)"
    assert speed(info, VIDEO) == pytest.approx(16.0 / (5 / (16.5 / 16)))
    assert notes[1:] == (f"video: plays {speed(info, VIDEO):.2f} times as fast as its source",)


def test_at_the_speed_of_the_source_there_is_no_note_of_speed(tmp_path):
    content = movie(numbered(17))
    fps = 16.0 / speed(probe_video(content), VIDEO)
    _, notes = read(tmp_path, replace(VIDEO, fps=fps), video=content)
    assert notes == ("video: 5 of 17 frames at 16 fps are used (even)",)


def test_a_source_that_is_used_whole_has_no_note(tmp_path):
    found, notes = read(tmp_path, VIDEO, video=movie(numbered(5)))
    assert (numbers(found.frames), notes) == ([0, 1, 2, 3, 4], ())


@pytest.mark.parametrize(
    ("fps", "ids"), [(16.0, [0, 1, 2, 3, 4]), (8.0, [0, 2, 4, 6, 8]), (32.0, [0, 0, 1, 1, 2])]
)
def test_cut_takes_the_start_at_the_fps_of_the_row(tmp_path, fps, ids):
    request = replace(VIDEO, video_sampling="cut", fps=fps)
    content = movie(numbered(17))
    found, notes = read(tmp_path, request, video=content)
    assert numbers(found.frames) == ids
    assert notes == ("video: 5 of 17 frames at 16 fps are used (cut)",)
    assert speed(probe_video(content), request) == 1.0


def test_the_mask_has_the_frames_of_the_video(tmp_path):
    mask = movie([255 - frame for frame in numbered(20)])
    found, _ = read(tmp_path, VIDEO, video=movie(numbered(17)), mask=mask)
    assert numbers(found.frames) == [0, 4, 8, 12, 16]
    assert [255 - int(frame[0, 0, 0]) for frame in found.mask] == [0, 20, 40, 60, 80]


@pytest.mark.parametrize("as_video", [False, True])
def test_one_mask_serves_all_frames(tmp_path, as_video):
    mask = np.asarray(picture(32, 32))
    content = movie([mask]) if as_video else saved(Image.fromarray(mask))
    found, _ = read(tmp_path, VIDEO, video=movie(numbered(9)), mask=content)
    assert len(list(found.frames)) == 5
    (only,) = found.mask
    np.testing.assert_array_equal(only, mask)


def test_a_gif_is_a_video(tmp_path):
    frames = [Image.fromarray(frame) for frame in numbered(9)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    found, notes = read(tmp_path, replace(VIDEO, fps=10.0, num_frames=9), video=content)
    assert numbers(found.frames) == list(range(9))
    assert notes == ()


def test_frame_ids_are_as_many_as_the_clip_has():
    info = probe_video(movie(numbered(33)))
    for sampling in ("even", "cut"):
        for count in (1, 5, 17, 33):
            ids = frame_ids(info, replace(VIDEO, num_frames=count, video_sampling=sampling))
            assert (len(ids), list(ids)) == (count, sorted(ids))
            assert 0 <= ids[0] <= ids[-1] < 33


# The stage


@pytest.fixture
def stage(tiny):
    """stage(model, mode) -> a condition stage that is set up."""
    made = []

    def make(name, mode="official"):
        checkpoint = open_checkpoint(tiny(name))
        config = ConditionConfig(
            vae=checkpoint.vae,
            image_encoder=checkpoint.image_encoder,
            image_processor=checkpoint.image_processor,
            model=checkpoint.model,
            mode=mode,
            dtype="float32",
        )
        made.append(Condition(config))
        made[-1].setup(Worker())
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture
def encoded(monkeypatch):
    """The requests that `ConditionEncoder.encode` was asked for."""
    calls, encode = [], ConditionEncoder.encode

    def counting(self, request, inputs):
        calls.append(request)
        return encode(self, request, inputs)

    monkeypatch.setattr(ConditionEncoder, "encode", counting)
    return calls


def record(folder, request=REQUEST, **media):
    inputs, sources = place(folder, **media)
    request = replace(request, inputs=inputs)
    return Record(key="ab" * 32, ids=("a",), request=request, sources=sources, payload=PAYLOAD)


def test_seeds_of_one_image_share_its_conditions(stage, encoded, tmp_path):
    condition, content = stage("i2v-14b-480p"), saved(picture())
    one = record(tmp_path, image=content)
    results = []
    for seed in range(5):
        changed = {"seed": seed, "prompt": f"{seed}", "steps": seed + 1, "shift": 1.0 + seed}
        results.append(condition.run(replace(one, request=replace(one.request, **changed)), silent))
    assert len(encoded) == 1
    first, *others = (Payload.unpack(result.payload).conditions for result in results)
    assert set(first) == {"image_latents", "image_features"}
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize(
    "change", [{"width": 64}, {"height": 64}, {"num_frames": 9}, {"image": saved(picture(seed=4))}]
)
def test_what_decides_conditions_is_encoded_anew(stage, encoded, tmp_path, change):
    condition = stage("i2v-14b-480p")
    image = change.get("image", saved(picture()))
    request = replace(REQUEST, **{name: value for name, value in change.items() if name != "image"})
    condition.run(record(tmp_path, image=saved(picture())), silent)
    condition.run(record(tmp_path, request, image=image), silent)
    assert len(encoded) == 2


@pytest.mark.parametrize(
    "change", [{"fps": 8.0}, {"video_sampling": "cut"}, {"num_frames": 9}, {"task": "vace", "width": 64}]
)
def test_what_decides_frames_of_a_source_is_encoded_anew(stage, encoded, tmp_path, change):
    condition, content = stage("vace-1.3b"), movie(numbered(33))
    condition.run(record(tmp_path, VIDEO, video=content), silent)
    condition.run(record(tmp_path, replace(VIDEO, **change), video=content), silent)
    condition.run(record(tmp_path, replace(VIDEO, context_scale=0.5, seed=3), video=content), silent)
    assert len(encoded) == 2


def test_key_frames_decide_conditions(stage, encoded, tmp_path):
    condition, content = stage("vace-1.3b"), saved(picture())
    request = replace(VIDEO, video_sampling=None)
    results = [
        condition.run(record(tmp_path, replace(request, key_frames=frames), key_images=content), silent)
        for frames in ((1,), (2,), (-4,))
    ]
    first, other, same = (Payload.unpack(item.payload).conditions["control"] for item in results)
    assert not torch.equal(first, other)
    assert torch.equal(first, same)


def test_notes_come_with_every_record_that_shares_conditions(stage, tmp_path):
    condition = stage("ti2v-5b")
    frames = [picture(seed=seed).convert("P") for seed in range(2)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    one = replace(record(tmp_path, image=content), notes=("earlier",))
    for seed in (1, 2):
        done = condition.run(replace(one, request=replace(one.request, seed=seed)), silent)
        assert done.notes == ("earlier", "image: animated: the first of 2 frames is used")


def test_text_alone_passes_through(stage, encoded, tmp_path):
    one = record(tmp_path, replace(REQUEST, task="t2v"))
    assert stage("ti2v-5b").run(one, silent) is one
    assert encoded == []


def test_vace_without_media_has_a_control_that_asks_for_everything(stage, tmp_path):
    done = stage("vace-1.3b").run(record(tmp_path, replace(VIDEO, video_sampling=None)), silent)
    control = Payload.unpack(done.payload).conditions["control"]
    assert control.shape == (1, 96, 2, 4, 4)
    assert (control[:, 32:] == 1).all()


def test_a_failure_does_not_stay_in_the_cache(stage, tmp_path):
    condition, content = stage("ti2v-5b"), saved(picture())
    one = record(tmp_path, image=content)
    path = tmp_path / digest(content)[:16]
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="changed"):
        condition.run(one, silent)
    path.write_bytes(content)
    assert Payload.unpack(condition.run(one, silent).payload).conditions.keys() == {"first_latents"}


@pytest.mark.parametrize("name", ["i2v-14b-480p", "ti2v-5b", "vace-1.3b"])
def test_a_turned_photo_gives_the_conditions_of_the_upright_one(stage, tmp_path, name):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = saved(picture().transpose(Image.Transpose.ROTATE_90), "WEBP", lossless=True, exif=exif)
    request = REQUEST if name != "vace-1.3b" else replace(VIDEO, video_sampling=None)
    condition = stage(name)
    one, other = (
        Payload.unpack(condition.run(record(tmp_path, request, image=content), silent).payload).conditions
        for content in (turned, saved(picture()))
    )
    assert set(one) == set(other)
    assert all(torch.equal(one[key], other[key]) for key in one)
