import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from wanray.config.schema import VideoConfig
from wanray.sinks.video import encode_mp4, encode_poster

FAST = VideoConfig(preset="veryfast")


def moving_frames(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Diagonal gradients that wander, uint8 FHWC."""
    step, row, column = np.mgrid[0:num_frames, 0:height, 0:width]
    channels = [row * 2 + step, column + 3 * step, row + column]
    return np.stack(channels, axis=-1).astype(np.uint8)


def probe(mp4: bytes, folder: Path) -> dict[str, Any]:
    """What ffprobe, which shares no code with PyAV's build, says of stream and container."""
    if shutil.which("ffprobe") is None:
        pytest.skip("no ffprobe on PATH")
    path = folder / "video.mp4"
    path.write_bytes(mp4)
    command = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_streams",
        "-show_format",
        "-of",
        "json",
        str(path),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)


def atoms(mp4: bytes) -> list[bytes]:
    """The kinds of the top-level boxes, in order."""
    kinds, place = [], 0
    while place < len(mp4):
        kinds.append(mp4[place + 4 : place + 8])
        place += int.from_bytes(mp4[place : place + 4], "big")
    assert place == len(mp4)
    return kinds


@pytest.mark.parametrize(("fps", "rate"), [(16.0, "16/1"), (23.976023976023978, "24000/1001")])
def test_stream_has_the_frames_rate_size_and_colours_asked_for(tmp_path: Path, fps: float, rate: str) -> None:
    (stream,) = probe(encode_mp4(moving_frames(17), fps, FAST, {}), tmp_path)["streams"]
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p")
    assert (stream["width"], stream["height"]) == (96, 64)
    assert stream["nb_read_frames"] == "17"
    assert stream["r_frame_rate"] == stream["avg_frame_rate"] == rate
    colours = {stream[f"color_{name}"] for name in ("space", "primaries", "transfer")}
    assert colours == {"bt709"}
    assert stream["color_range"] == "tv"


def test_title_and_comment_survive(tmp_path: Path) -> None:
    metadata = {"title": "A cat, 猫", "comment": '{"seed": 1}'}
    tags = probe(encode_mp4(moving_frames(1), 16, FAST, metadata), tmp_path)["format"]["tags"]
    assert tags["title"] == metadata["title"]
    assert tags["comment"] == metadata["comment"]


def test_index_stands_before_the_frames() -> None:
    kinds = atoms(encode_mp4(moving_frames(5), 16, FAST, {}))
    assert kinds[:2] == [b"ftyp", b"moov"]
    assert b"mdat" in kinds[2:]


def test_decoded_frames_are_the_input_in_order() -> None:
    frames_FHWC = moving_frames(33) // 4 + np.arange(33, dtype=np.uint8)[:, None, None, None] * 4
    with av.open(io.BytesIO(encode_mp4(frames_FHWC, 16, VideoConfig(crf=1), {})), "r") as container:
        luma_F = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(luma_F) == 33
    assert np.corrcoef(luma_F, frames_FHWC.mean(axis=(1, 2, 3)))[0, 1] > 0.99


@pytest.mark.parametrize("colour", [(200, 30, 40), (20, 180, 60), (30, 40, 210), (255, 255, 255), (0, 0, 0)])
def test_colours_come_back_within_three_levels(colour: tuple[int, int, int]) -> None:
    frames_FHWC = np.full((3, 64, 96, 3), colour, dtype=np.uint8)
    with av.open(io.BytesIO(encode_mp4(frames_FHWC, 16, FAST, {})), "r") as container:
        (_, frame, _) = container.decode(video=0)
        decoded_HWC = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert np.abs(decoded_HWC.astype(int) - colour).max() <= 3


def test_equal_frames_give_equal_bytes() -> None:
    frames_FHWC = moving_frames(33)
    assert encode_mp4(frames_FHWC, 16, FAST, {}) == encode_mp4(frames_FHWC, 16, FAST, {})


def test_poster_is_a_jpeg_of_the_frame() -> None:
    frame_HWC = np.full((64, 96, 3), (200, 30, 40), dtype=np.uint8)
    image = Image.open(io.BytesIO(encode_poster(frame_HWC)))
    assert (image.format, image.size) == ("JPEG", (96, 64))
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 40)).max() <= 4
