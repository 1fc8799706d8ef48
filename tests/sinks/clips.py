"""Frames to encode, and what is seen of what was encoded."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wanray.config.schema import VideoConfig
from wanray.sinks.video import AudioSource, Encoded, encode_frames

MOVIES = [
    {"codec": "h264"},
    {"codec": "h265"},
    {"codec": "av1"},
    {"format": "webm", "codec": "vp9"},
    {"format": "webm", "codec": "av1"},
]
"""Every codec in every container, as arguments of VideoConfig."""


def moving_frames(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Smooth coloured waves that wander, uint8 FHWC."""
    step, row, column = np.mgrid[0:num_frames, 0:height, 0:width]
    waves = [row / 12 + step / 5, column / 15 - step / 7, (row + column) / 20 + step / 9]
    return (127 + 100 * np.sin(np.stack(waves, axis=-1))).astype(np.uint8)


def encode(
    frames_FHWC: np.ndarray, source: AudioSource | None = None, fps: float = 16.0, **video: Any
) -> Encoded:
    """Encoded fast, with the VideoConfig that `video` says."""
    config = VideoConfig(preset="veryfast", **video)
    return encode_frames(iter(frames_FHWC), fps, config, {}, audio=source)


def data_of(encoded: Encoded) -> bytes:
    """The one file."""
    ((path, data),) = encoded.files.items()
    assert path == encoded.path
    return data


def decode(data: bytes) -> np.ndarray:
    """All frames of a movie as FHWC, read as BT.709."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = [
            frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
            for frame in container.decode(video=0)
        ]
    return np.stack(frames)


def probe(encoded: Encoded, folder: Path) -> dict[str, Any]:
    """What ffprobe, which shares no code with PyAV's build, says of streams and container."""
    if shutil.which("ffprobe") is None:
        pytest.skip("no ffprobe on PATH")
    path = folder / encoded.path
    path.write_bytes(data_of(encoded))
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json"]
    return json.loads(subprocess.run([*command, path], check=True, capture_output=True, timeout=30).stdout)
