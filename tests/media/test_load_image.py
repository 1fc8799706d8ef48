"""Images of every kind as a user sees them, and hostile bytes."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wanray.errors import InputError
from wanray.media import load_image, probe_image

RNG = np.random.default_rng(0)
RGB_HWC = RNG.integers(0, 256, (12, 20, 3), np.uint8)
GREY_HW = RNG.integers(0, 256, (12, 20), np.uint8)
DEEP_HW = RNG.integers(0, 65536, (12, 20), np.uint16)
ALPHA_HW = RNG.integers(0, 256, (12, 20), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def loaded(data: bytes) -> np.ndarray:
    """The pixels, after checks that every image must pass."""
    info, image = probe_image(data), load_image(data)
    assert image.rgb_HWC.shape == (info.height, info.width, 3)
    assert image.rgb_HWC.dtype == np.uint8
    assert image.rgb_HWC.flags.c_contiguous
    assert image.notes == info.notes
    np.testing.assert_array_equal(image.rgb_HWC, load_image(data).rgb_HWC)
    return image.rgb_HWC


def over_white(rgb_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    alpha_HW1 = alpha_HW[..., None] / 255
    return rgb_HWC * alpha_HW1 + 255 * (1 - alpha_HW1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "JPEG2000", "AVIF"])
def test_opaque_images_are_as_pillow_reads_them(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(RGB_HWC), kind, **options)
    np.testing.assert_array_equal(loaded(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    info = probe_image(data)
    assert (info.width, info.height, info.format, info.num_frames, info.notes) == (20, 12, kind, 1, ())
    if kind in ("PNG", "BMP", "TIFF", "PPM", "WEBP"):
        np.testing.assert_array_equal(loaded(data), RGB_HWC)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_modes_without_transparency(mode: str) -> None:
    image = Image.fromarray(RGB_HWC).convert(mode)
    data = saved(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    np.testing.assert_array_equal(loaded(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_lies_on_white(mode: str, kind: str) -> None:
    rgb_HWC = RGB_HWC if mode == "RGBA" else np.repeat(GREY_HW[..., None], 3, axis=2)
    image = Image.fromarray(np.dstack([rgb_HWC, ALPHA_HW])).convert(mode)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    expected_HWC = over_white(rgb_HWC, ALPHA_HW)
    assert abs(loaded(saved(image, kind, **options)) - expected_HWC).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.new("RGB", (20, 12), (255, 255, 0)).convert(mode, dither=Image.Dither.NONE)
    image.paste(Image.new("RGB", (10, 12)).convert(mode))
    transparent = image.getpixel((0, 0))
    rgb_HWC = loaded(saved(image, "PNG", transparency=transparent))
    assert (rgb_HWC[:, :10] == 255).all()
    np.testing.assert_array_equal(rgb_HWC[:, 10:], np.asarray(image.convert("RGB"))[:, 10:])


def test_a_palette_with_alpha() -> None:
    image = Image.fromarray(np.tile(np.arange(2, dtype=np.uint8), (4, 4))).convert("P")
    image.putpalette([0, 0, 0, 0, 0, 255])
    rgb_HWC = loaded(saved(image, "PNG", transparency=bytes([0, 128])))
    assert (rgb_HWC[:, ::2] == 255).all()
    assert (abs(rgb_HWC[:, 1::2].astype(int) - (127, 127, 255)) <= 1).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bits_are_scaled(mode: str) -> None:
    if mode == "I;16":
        data = saved(Image.fromarray(DEEP_HW), "PNG")
    elif mode == "I;16B":
        image = Image.frombytes("I;16B", (20, 12), DEEP_HW.astype(">u2").tobytes())
        data = saved(image, "TIFF")
    else:
        data = saved(Image.fromarray(DEEP_HW.astype(np.int32)), "TIFF")
    assert Image.open(io.BytesIO(data)).mode == mode
    expected_HW = np.round(DEEP_HW / 257).astype(np.uint8)
    np.testing.assert_array_equal(loaded(data), np.repeat(expected_HW[..., None], 3, axis=2))


def test_a_transparent_level_of_16_bits() -> None:
    data = saved(Image.fromarray(DEEP_HW), "PNG", transparency=int(DEEP_HW[0, 0]))
    assert (loaded(data)[0, 0] == 255).all()


@pytest.mark.parametrize("array", [np.ones((4, 4), np.float32), np.full((4, 4), 70000, np.int32)])
def test_samples_without_a_known_range_are_refused(array: np.ndarray) -> None:
    data = saved(Image.fromarray(array), "TIFF")
    with pytest.raises(InputError, match="store 8 or 16"):
        load_image(data)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_exif_orientations(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("JPEG", "AVIF") else {}
    plain_HWC = loaded(saved(Image.fromarray(RGB_HWC), kind, **options))
    rgb_HWC = loaded(saved(Image.fromarray(RGB_HWC), kind, exif=exif, **options))
    np.testing.assert_array_equal(rgb_HWC, TURNS[orientation](plain_HWC))


def test_an_orientation_behind_the_pixels_of_a_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(RGB_HWC), exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    np.testing.assert_array_equal(loaded(moved), loaded(data))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_unreadable_exif_is_ignored() -> None:
    for exif in (b"Exif\x00\x00", b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"):
        data = saved(Image.fromarray(RGB_HWC), "JPEG", exif=exif)
        assert loaded(data).shape == (12, 20, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_used(kind: str) -> None:
    pictures = [Image.new("RGB", (8, 6), (level,) * 3) for level in (10, 200, 90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    assert (loaded(data) == 10).all()
    assert probe_image(data).num_frames == 3
    assert load_image(data).notes == ("animated: the first of 3 frames is used",)


def bomb_png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [header, body, b"IEND"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is no image"),
        (b"a text, not an image\n", "it is no image"),
        (b"P6 is the name of a format", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
        (bomb_png(50000, 50000), "it has 50000x50000 pixels, more than the 100000000"),
        (bomb_png(10001, 10000), "it has 10001x10000 pixels, more than the 100000000"),
        (bomb_png(0, 5), "damaged|no pixels"),
    ],
    ids=["empty", "text", "ppm", "png", "jpeg", "postscript", "bomb", "just too large", "no pixels"],
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        probe_image(data)
    with pytest.raises(InputError, match=reason):
        load_image(data)


def test_pillow_does_not_warn_of_images_below_the_limit() -> None:
    info = probe_image(bomb_png(10000, 10000))
    assert (info.width, info.height) == (10000, 10000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_truncated_images_are_refused(kind: str) -> None:
    data = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), kind)
    with pytest.raises(InputError):
        load_image(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged files
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]), st.data())
def test_damage_is_refused_or_survived(kind: str, draw: st.DataObject) -> None:
    data = bytearray(saved(Image.fromarray(RGB_HWC), kind))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert load_image(bytes(data)).rgb_HWC.ndim == 3
    with contextlib.suppress(ValueError):
        probe_image(bytes(data))
