"""Frames go through an encoder into a container, one at a time. Knows no format."""

from collections.abc import Iterable

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from wanray.sinks.scheduling import kept_scheduling

_X265_DELAY = 2
"""Frames by which x265 decodes ahead of what it shows."""


def to_picture(frame_HWC: np.ndarray) -> av.VideoFrame:
    """A uint8 frame as FFmpeg's rgb24."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")


def mux_video(container: OutputContainer, stream: VideoStream, pictures: Iterable[av.VideoFrame]) -> int:
    """Encode pictures of one size, at the stream's rate, as they come; returns how many there were."""
    num_frames = 0
    for picture in pictures:
        if num_frames == 0:
            stream.height, stream.width = picture.height, picture.width
            with kept_scheduling():
                stream.codec_context.open()
        picture.pts, picture.time_base = num_frames, 1 / stream.codec_context.framerate
        num_frames += 1
        container.mux(stream.encode(picture))
    last = stream.encode()
    if stream.codec_context.name == "libx265" and num_frames <= _X265_DELAY:
        _set_decode_times(last)
    container.mux(last)
    return num_frames


def _set_decode_times(packets: list[Packet]) -> None:
    # x265 leaves them uninitialised in a clip that is shorter than its delay.
    for number, packet in enumerate(packets):
        packet.dts = number - _X265_DELAY
