"""Frames become bytes: an H.264 mp4 that browsers play at once, and a JPEG poster. Nothing is stored here.

Shapes: F frames, H height, W width, C channels (red, green, blue).
"""

import io
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image

from wanray.config.schema import VideoConfig
from wanray.sinks.faststart import faststart

_BT709 = 1
"""ITU-T H.273's number for BT.709: primaries, transfer and matrix alike."""
_LIMITED = 1
"""FFmpeg's number for a luma range of 16-235."""
_NUM_THREADS = 2
"""Fixed: x264's bytes depend on it."""
_JPEG_QUALITY = 90


def encode_mp4(
    frames_FHWC: np.ndarray, fps: float, config: VideoConfig, metadata: Mapping[str, str]
) -> bytes:
    """An mp4 of exactly these uint8 frames: H.264, yuv420p, BT.709, index first.

    Height and width must be even. `metadata` may hold `title` and `comment`; mp4 drops other names.
    Equal input gives equal bytes on equal builds of x264.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        container.metadata.update(metadata)
        options = {"crf": str(config.crf), "preset": config.preset}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        _describe(stream, *frames_FHWC.shape[1:3])
        for frame_HWC in frames_FHWC:
            container.mux(stream.encode(_to_yuv(frame_HWC)))
        container.mux(stream.encode())
    return faststart(file.getvalue())


def encode_poster(frame_HWC: np.ndarray) -> bytes:
    """One uint8 frame as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _describe(stream: VideoStream, height: int, width: int) -> None:
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    codec = stream.codec_context
    codec.thread_count = _NUM_THREADS
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED


def _to_yuv(frame_HWC: np.ndarray) -> av.VideoFrame:
    # FFmpeg's default is BT.601, which players guess wrong from 720 lines upwards.
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
