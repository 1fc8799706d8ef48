"""Clicks every half second tell whether sound and picture are in step."""

import io
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import data_of, encode, moving_frames, probe

from wanray.errors import InputError
from wanray.sinks.video import AudioSource, Encoded

RATE = 44100
CLICK_S = 0.02
FORMATS = [("mp4", "aac"), ("webm", "opus")]

formats = pytest.mark.parametrize(("video_format", "codec"), FORMATS)


@cache
def source(seconds: float = 3.0, audio_start_s: float = 0.0, video_start_s: float = 0.0) -> AudioSource:
    """A video whose mono sound clicks at 0, 0.5, 1.0 ... seconds after the sound starts."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video, sound = container.add_stream("libx264", rate=16), container.add_stream("aac", rate=RATE)
        video.height, video.width, video.pix_fmt, sound.layout = 64, 64, "yuv420p", "mono"
        for index in range(round(seconds * 16)):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index, np.uint8), format="rgb24")
            picture.pts, picture.time_base = index + round(video_start_s * 16), Fraction(1, 16)
            container.mux(video.encode(picture))
        clock_s = np.arange(round(seconds * RATE)) / RATE
        clicks = np.where(clock_s % 0.5 < CLICK_S, 0.8 * np.sin(2 * np.pi * 1000 * clock_s), 0)
        frame = av.AudioFrame.from_ndarray(clicks[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, round(audio_start_s * RATE), Fraction(1, RATE)
        for stream, last in ((sound, frame), (sound, None), (video, None)):
            container.mux(stream.encode(last))
    return AudioSource(file.getvalue())


def clip(audio: AudioSource, video_format: str, num_frames: int = 33) -> Encoded:
    return encode(moving_frames(num_frames), audio, format=video_format, audio=True)


def sound_of(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Times in s, and what sounds then, as one channel."""
    times_s, values = [], []
    with av.open(io.BytesIO(data_of(encoded)), "r") as container:
        for frame in container.decode(audio=0):
            times_s.append(float(frame.pts * frame.time_base) + np.arange(frame.samples) / frame.sample_rate)
            values.append(frame.to_ndarray().mean(axis=0))
    return np.concatenate(times_s), np.concatenate(values)


def clicks_s(encoded: Encoded) -> list[float]:
    """When clicks start."""
    times_s, values = sound_of(encoded)
    loud_s = times_s[np.abs(values) > 0.2]
    return list(loud_s[np.insert(np.diff(loud_s) > 2 * CLICK_S, 0, True)])


@formats
def test_the_track_is_as_long_as_the_clip(tmp_path: Path, video_format: str, codec: str) -> None:
    encoded = clip(source(), video_format)
    streams = probe(encoded, tmp_path)["streams"]
    assert [stream["codec_name"] for stream in streams] == [encoded.codec, codec]
    assert streams[0]["nb_read_frames"] == "33"
    times_s, _ = sound_of(encoded)
    assert abs(times_s[0]) < 0.001
    assert abs(times_s[-1] - 33 / 16) < 1 / 16
    assert encoded == clip(source(), video_format), "equal input, equal bytes"


@formats
@pytest.mark.parametrize(
    ("source_args", "expected_s"),
    [
        ({}, [0.0, 0.5, 1.0, 1.5, 2.0]),
        ({"audio_start_s": 0.7}, [0.7, 1.2, 1.7]),
        ({"video_start_s": 0.25}, [0.25, 0.75, 1.25, 1.75]),
        ({"seconds": 1.0}, [0.0, 0.5]),
    ],
    ids=["together", "late sound", "late picture", "short source"],
)
def test_sound_and_picture_are_in_step(
    video_format: str, codec: str, source_args: dict[str, Any], expected_s: list[float]
) -> None:
    assert clicks_s(clip(source(**source_args), video_format)) == pytest.approx(expected_s, abs=0.003)


def test_sound_lies_between_the_pictures() -> None:
    with av.open(io.BytesIO(data_of(clip(source(), "mp4"))), "r") as container:
        order = [(packet.pos, packet.stream.type) for packet in container.demux() if packet.pos is not None]
    kinds = [kind for _, kind in sorted(order)]
    assert "audio" in kinds[: len(kinds) // 4]
    assert "video" in kinds[-len(kinds) // 4 :]


@formats
def test_a_silent_source_gives_a_clip_without_sound(video_format: str, codec: str) -> None:
    silent = AudioSource(data_of(encode(moving_frames(33), format=video_format)))
    assert clip(silent, video_format) == encode(moving_frames(33), format=video_format)


def test_sound_is_left_out_unless_the_config_wants_it() -> None:
    assert encode(moving_frames(5), source()) == encode(moving_frames(5))


def test_a_source_that_is_no_video_is_refused() -> None:
    with pytest.raises(InputError, match="the source video cannot be opened for its audio"):
        clip(AudioSource(b"no video at all"), "mp4")
