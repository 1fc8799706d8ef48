"""Videos, and pictures in their place: what is in them, and their frames. Knows which reader to ask."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from wanray.errors import InputError
from wanray.media.animation import animation_frames, probe_animation
from wanray.media.checks import reason_of
from wanray.media.image import format_of
from wanray.media.info import VideoInfo
from wanray.media.stream import probe_stream, stream_frames


def probe_video(data: bytes) -> VideoInfo:
    """What header and packets say, and the upright size of the first frame, which is decoded.

    A picture is a video of one frame.

    Raises:
        ValueError: it is no video, or none that can be used; the message is the reason, without a name.
    """
    return probe_stream(data) if format_of(data) is None else probe_animation(data)


def read_frames(data: bytes, frame_ids: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames with these numbers as uint8 [H, W, 3] (red, green, blue), upright, all of one size.

    Args:
        frame_ids: ascending from 0; one that is repeated gives the same array again, so do not write to it.

    Raises:
        InputError: the data are damaged or end before; the message is the reason, without a name.
    """
    assert list(frame_ids) == sorted(frame_ids), "frames are decoded forward, once"
    try:
        yield from _picked(data, Counter(frame_ids))
    except Exception as error:  # as in probe_image
        raise InputError(reason_of(error)) from error


def _picked(data: bytes, repeats: Counter[int]) -> Iterator[np.ndarray]:
    """Each frame as often as `repeats` says; nothing is decoded after the last of them."""
    left, shape = repeats.total(), None
    frames = stream_frames(data) if format_of(data) is None else animation_frames(data)
    for number, decode in enumerate(frames):
        if number not in repeats:
            continue
        rgb_HWC = decode()
        shape = shape or rgb_HWC.shape
        if rgb_HWC.shape != shape:
            raise ValueError(f"the size of its picture changes before frame {number}")
        yield from [rgb_HWC] * repeats[number]
        left -= repeats[number]
        if not left:
            return
    if left:
        raise ValueError(f"it ends before frame {max(repeats)}")
