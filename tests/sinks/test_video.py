import io
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import MOVIES, data_of, decode, encode, moving_frames, probe
from PIL import Image

from wanray.config.schema import VideoConfig
from wanray.sinks.faststart import faststart
from wanray.sinks.video import MiddleFrame, encode_frames, encode_poster

COLOURS = [(200, 30, 40), (20, 180, 60), (30, 40, 210), (255, 255, 255), (0, 0, 0)]
TAGS = {"h264": "avc1", "hevc": "hvc1", "av1": "av01"}
"""How mp4 names the codecs: hvc1, not hev1, is what Apple's players take."""

movies = pytest.mark.parametrize("video", MOVIES, ids=lambda video: "-".join(video.values()))


def atoms(mp4: bytes) -> list[bytes]:
    """The kinds of the top-level boxes, in order."""
    kinds, place = [], 0
    while place < len(mp4):
        kinds.append(mp4[place + 4 : place + 8])
        place += int.from_bytes(mp4[place : place + 4], "big")
    assert place == len(mp4)
    return kinds


@movies
@pytest.mark.parametrize(("fps", "rate"), [(16.0, "16/1"), (23.976023976023978, "24000/1001")])
def test_stream_has_the_frames_rate_size_and_colours_asked_for(
    tmp_path: Path, video: dict[str, Any], fps: float, rate: str
) -> None:
    encoded = encode(moving_frames(17), fps=fps, **video)
    (stream,) = probe(encoded, tmp_path)["streams"]
    assert (stream["codec_name"], stream["pix_fmt"]) == (encoded.codec, "yuv420p")
    assert (stream["width"], stream["height"]) == (96, 64)
    assert int(stream["nb_read_frames"]) == encoded.num_frames == 17
    assert stream["r_frame_rate"] == stream["avg_frame_rate"] == rate
    assert float(stream["start_time"]) == 0
    assert {stream[f"color_{name}"] for name in ("space", "primaries", "transfer")} == {"bt709"}
    assert stream["color_range"] == "tv"
    if "format" not in video:
        assert stream["codec_tag_string"] == TAGS[encoded.codec]


@movies
def test_the_file_is_named_by_its_content(video: dict[str, Any]) -> None:
    encoded = encode(moving_frames(5), **video)
    assert encoded.path == f"video-{encoded.sha256[:8]}.{video.get('format', 'mp4')}"
    assert encoded.num_bytes == len(data_of(encoded))


@movies
def test_title_and_comment_survive(tmp_path: Path, video: dict[str, Any]) -> None:
    metadata = {"title": "A cat, 猫", "comment": '{"seed": 1}'}
    encoded = encode_frames(moving_frames(1), 16, VideoConfig(**video), metadata)
    tags = probe(encoded, tmp_path)["format"]["tags"]
    assert {name.lower(): text for name, text in tags.items()}.items() >= metadata.items()


@pytest.mark.parametrize("video", MOVIES[:3], ids=lambda video: video["codec"])
def test_index_stands_before_the_frames(video: dict[str, Any]) -> None:
    kinds = atoms(data_of(encode(moving_frames(5), **video)))
    assert kinds[:2] == [b"ftyp", b"moov"]
    assert b"mdat" in kinds[2:]


@movies
def test_decoded_frames_are_the_input_in_order(video: dict[str, Any]) -> None:
    frames_FHWC = moving_frames(33)
    decoded_FHWC = decode(data_of(encode(frames_FHWC, **video)))
    errors_F = np.abs(decoded_FHWC.astype(float) - frames_FHWC).mean(axis=(1, 2, 3))
    assert len(errors_F) == 33
    assert errors_F.max() < 4
    assert np.abs(decoded_FHWC[1:].astype(float) - frames_FHWC[:-1]).mean() > 8, "neighbours differ by more"


@movies
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_come_back_within_three_levels(video: dict[str, Any], colour: tuple[int, int, int]) -> None:
    frames_FHWC = np.full((3, 64, 96, 3), colour, dtype=np.uint8)
    decoded_FHWC = decode(data_of(encode(frames_FHWC, **video)))
    assert np.abs(decoded_FHWC.astype(int) - colour).max() <= 3


@movies
def test_equal_frames_give_equal_bytes(video: dict[str, Any]) -> None:
    assert encode(moving_frames(33), **video) == encode(moving_frames(33), **video)


@movies
@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_a_clip_may_be_as_short_as_one_frame(video: dict[str, Any], num_frames: int) -> None:
    clips = [encode(moving_frames(num_frames, 16, 32), **video) for _ in range(10)]
    assert len({clip.sha256 for clip in clips}) == 1
    assert len(decode(data_of(clips[0]))) == num_frames


def test_defaults_give_what_they_always_gave() -> None:
    frames_FHWC = moving_frames(17)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "17", "preset": "medium"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        codec = stream.codec_context
        codec.thread_count, codec.color_range = 2, 1
        codec.colorspace = codec.color_primaries = codec.color_trc = 1
        for frame_HWC in frames_FHWC:
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            container.mux(
                stream.encode(frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1))
            )
        container.mux(stream.encode())
    encoded = encode_frames(iter(frames_FHWC), 16.0, VideoConfig(), {})
    assert data_of(encoded) == faststart(file.getvalue())


@movies
def test_bit_rate_is_what_was_asked_for(video: dict[str, Any]) -> None:
    noise_FHWC = np.random.default_rng(0).normal(0, 6, (81, 128, 192, 1))
    frames_FHWC = np.clip(moving_frames(81, 128, 192) + noise_FHWC, 0, 255).astype(np.uint8)
    encoded = encode(frames_FHWC, bitrate_kbps=400, **video)
    kbps = encoded.num_bytes * 8 / 1000 / Fraction(81, 16)
    assert 200 < kbps < 800


@movies
def test_a_larger_crf_gives_a_smaller_file(video: dict[str, Any]) -> None:
    sizes = [encode(moving_frames(9), crf=crf, **video).num_bytes for crf in (5, 25, 45)]
    assert sizes[0] > sizes[1] > sizes[2]


@movies
def test_frames_are_not_kept(video: dict[str, Any]) -> None:
    passed: list[weakref.ref[np.ndarray]] = []
    most = 0

    def frames():
        nonlocal most
        for frame_HWC in moving_frames(33, 64, 64):
            fresh_HWC = frame_HWC.copy()
            passed.append(weakref.ref(fresh_HWC))
            most = max(most, sum(frame() is not None for frame in passed))
            yield fresh_HWC

    tap = MiddleFrame(33)
    encode_frames(tap(frames()), 16.0, VideoConfig(preset="veryfast", **video), {})
    assert most <= 3
    assert np.array_equal(tap.frame, moving_frames(33, 64, 64)[16])


def test_memory_does_not_grow_with_the_clip() -> None:
    from resource import RUSAGE_SELF, getrusage

    def peak_mib(num_frames: int) -> float:
        frame_HWC = np.zeros((512, 512, 3), dtype=np.uint8)
        config = VideoConfig(preset="ultrafast")
        encode_frames((frame_HWC + index % 200 for index in range(num_frames)), 16.0, config, {})
        return getrusage(RUSAGE_SELF).ru_maxrss / 1024

    few = peak_mib(100)
    assert peak_mib(500) - few < 100, "400 more frames are 300 MiB"


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_the_middle_frame_is_kept_though_the_buffer_is_reused(num_frames: int) -> None:
    buffer_HWC = np.zeros((2, 2, 3), dtype=np.uint8)
    tap = MiddleFrame(num_frames)
    for index, _ in enumerate(tap(buffer_HWC for _ in range(num_frames))):
        buffer_HWC[:] = index + 1
    assert (tap.frame == num_frames // 2).all()


def test_poster_is_a_jpeg_of_the_frame() -> None:
    frame_HWC = np.full((64, 96, 3), (200, 30, 40), dtype=np.uint8)
    image = Image.open(io.BytesIO(encode_poster(frame_HWC)))
    assert (image.format, image.size) == ("JPEG", (96, 64))
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 40)).max() <= 4
