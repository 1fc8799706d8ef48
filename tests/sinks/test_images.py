import hashlib
import io

import numpy as np
import pytest
from clips import data_of, encode, moving_frames
from PIL import Image

from wanray.config.schema import VideoConfig
from wanray.sinks.video import Encoded, encode_frames

METADATA = {"title": "A cat, 猫", "comment": "wanray 01"}


def still(image_format: str, frames_FHWC: np.ndarray) -> Encoded:
    config = VideoConfig(image_format=image_format)
    return encode_frames(iter(frames_FHWC), 16.0, config, METADATA, still=True)


def animation(encoded: Encoded) -> tuple[np.ndarray, list[int]]:
    """Frames as FHWC, and how long each is shown, in ms."""
    frames, durations_ms = [], []
    with Image.open(io.BytesIO(data_of(encoded))) as image:
        assert image.format == encoded.codec.upper()
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations_ms.append(image.info.get("duration", 0))
        assert image.info["loop"] == 0 or image.n_frames == 1, "for ever"
    return np.stack(frames), durations_ms


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_a_still_is_bit_equal_to_its_frame(image_format: str) -> None:
    (frame_HWC,) = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    encoded = still(image_format, frame_HWC[None])
    assert encoded == still(image_format, frame_HWC[None])
    assert encoded.path == f"image-{encoded.sha256[:8]}.{image_format}"
    assert (encoded.codec, encoded.num_frames) == (image_format, 1)
    with Image.open(io.BytesIO(data_of(encoded))) as image:
        assert image.format == image_format.upper()
        assert np.array_equal(np.asarray(image), frame_HWC)


def test_a_png_still_has_title_and_comment() -> None:
    with Image.open(io.BytesIO(data_of(still("png", moving_frames(1))))) as image:
        assert image.text == {"Title": METADATA["title"], "Comment": METADATA["comment"]}


def test_a_still_has_exactly_one_frame() -> None:
    with pytest.raises(ValueError, match="too many"):
        still("png", moving_frames(2))


def test_a_png_sequence_is_a_folder_of_bit_equal_frames() -> None:
    frames_FHWC = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
    encoded = encode(frames_FHWC, format="png")
    assert encoded == encode(frames_FHWC, format="png")
    assert list(encoded.files) == [f"{encoded.path}/{index:06d}.png" for index in range(12)]
    for data, frame_HWC in zip(encoded.files.values(), frames_FHWC, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), frame_HWC)
    whole = b"".join(encoded.files.values())
    assert encoded.sha256 == hashlib.sha256(whole).hexdigest()
    assert encoded.path == f"frames-{encoded.sha256[:8]}"
    assert (encoded.codec, encoded.num_frames, encoded.num_bytes) == ("png", 12, len(whole))


@pytest.mark.parametrize(("video_format", "unit_ms"), [("gif", 10), ("webp", 2)])
@pytest.mark.parametrize("fps", [8, 16, 23.976, 24, 30])
def test_an_animation_lasts_as_long_as_the_clip(video_format: str, unit_ms: int, fps: float) -> None:
    encoded = encode(moving_frames(33), fps=fps, format=video_format)
    frames_FHWC, durations_ms = animation(encoded)
    assert len(frames_FHWC) == encoded.num_frames == 33
    assert abs(sum(durations_ms) - 33_000 / fps) <= unit_ms
    assert max(durations_ms) - min(durations_ms) <= unit_ms
    assert encoded.path == f"video-{encoded.sha256[:8]}.{video_format}"


@pytest.mark.parametrize("video_format", ["gif", "webp"])
def test_an_animation_looks_like_the_clip(video_format: str) -> None:
    frames_FHWC = moving_frames(17)
    encoded = encode(frames_FHWC, format=video_format)
    assert encoded == encode(frames_FHWC, format=video_format)
    shown_FHWC, _ = animation(encoded)
    error_FHWC = shown_FHWC.astype(float) - frames_FHWC
    seen_FhwC = error_FHWC.reshape(17, 16, 4, 24, 4, 3).mean(axis=(2, 4))  # dither is averaged by the eye
    assert np.abs(seen_FhwC).mean(axis=(1, 2, 3)).max() < 3
    assert np.abs(error_FHWC.mean(axis=(1, 2))).max() < 2, "no cast"


@pytest.mark.parametrize("video_format", ["gif", "webp"])
@pytest.mark.parametrize("colour", [(200, 30, 40), (20, 180, 60), (30, 40, 210), (255, 255, 255), (0, 0, 0)])
def test_flat_colours_come_back(video_format: str, colour: tuple[int, int, int]) -> None:
    encoded = encode(np.full((2, 32, 48, 3), colour, dtype=np.uint8), format=video_format)
    shown_FHWC, _ = animation(encoded)
    assert np.abs(shown_FHWC.astype(int) - colour).max() <= 4


def test_equal_frames_of_a_gif_are_all_there() -> None:
    frames_FHWC, durations_ms = animation(encode(np.full((5, 32, 48, 3), 90, np.uint8), fps=10, format="gif"))
    assert len(frames_FHWC) == 5
    assert durations_ms == [100] * 5
