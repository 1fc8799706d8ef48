"""Small media, made on the fly."""

import io
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """encode(frames, container, codec, ...) -> the bytes of a video of these frames, lossless by default."""
    return _encode


@pytest.fixture(scope="session")
def clip_FHWC() -> np.ndarray:  # noqa: N802 - a fixture is named as the array it is
    """Seven different frames of 16x12 pixels, without symmetry."""
    return np.random.default_rng(0).integers(0, 256, (7, 12, 16, 3), np.uint8)


def _encode(
    frames: Iterable[np.ndarray],
    container: str = "mp4",
    codec: str = "libx264rgb",
    pix_fmt: str = "rgb24",
    array_format: str = "rgb24",
    rate: Fraction | int = 16,
    options: dict[str, str] | None = None,
    audio: bool = False,
    **context: Any,
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {"qp": "0"})
        stream.pix_fmt = pix_fmt
        sound = output.add_stream("pcm_s16le", rate=8000) if audio else None
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format=array_format)
            if number == 0:
                stream.width, stream.height = frame.width, frame.height
            for name, value in context.items():
                setattr(stream.codec_context, name, value)
                setattr(frame, name, value)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            output.mux(sound.encode(_silence()))
            output.mux(sound.encode())
    return file.getvalue()


def _silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
    frame.rate = 8000
    return frame
