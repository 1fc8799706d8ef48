"""How many frames a video or picture really has: all of them are decoded."""

from dataclasses import dataclass

from wanray.media.animation import animation_frames
from wanray.media.checks import reason_of
from wanray.media.image import format_of
from wanray.media.stream import stream_frames


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came out of a file."""

    num_frames: int
    width: int
    height: int
    """Of the first frame."""


def decode_all(data: bytes) -> Decoded:
    """Decode every frame.

    Raises:
        ValueError: the data are no video or picture, or damaged; the message is the reason.
    """
    is_picture = format_of(data) is not None
    count, height, width = 0, 0, 0
    try:
        for decode in animation_frames(data) if is_picture else stream_frames(data):
            # The frames of a stream are decoded before they are converted; pictures only then.
            if is_picture or not count:
                height, width, _ = decode().shape
            count += 1
    except Exception as error:  # as in wanray.media: readers raise whatever the bytes make them stumble over
        raise ValueError(reason_of(error)) from error
    return Decoded(count, width, height)
