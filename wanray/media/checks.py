"""How much of anything is accepted, and how it is said that something is not."""

from contextlib import AbstractContextManager, nullcontext
from threading import RLock

import av

from wanray.errors import printable

MAX_PIXELS = 100_000_000
"""Of one picture: a larger one is taken for an attack on the memory."""
MAX_FRAMES = 100_000
"""Of one video: more than an hour at 24 frames per second."""
MAX_VIDEO_PIXELS = 36_000_000
"""Of one frame: 8K. A decoder holds many."""
MAX_ANIMATION_PIXELS = 2**30
"""Of all frames of an animated image, which are decoded when it is planned: 500 of 1920x1080."""
LARGE_PIXELS = 2**23
"""Of larger pictures, more than 4K, only one at a time is decoded: many threads open media at once."""

_ONE_LARGE = RLock()


def room_for(num_pixels: int) -> AbstractContextManager[object]:
    """Wait until a picture of this size may be decoded."""
    return _ONE_LARGE if num_pixels > LARGE_PIXELS else nullcontext()


def check_size(width: int, height: int, most: int | None = None) -> None:
    """Refuse with a ValueError what has no pixels, or more than `most` (MAX_PIXELS)."""
    most = MAX_PIXELS if most is None else most
    if width < 1 or height < 1:
        raise ValueError(f"it has no pixels: {width}x{height}")
    if width * height > most:
        raise ValueError(f"it has {width}x{height} pixels, more than the {most} that are allowed")


def check_num_frames(num_frames: int) -> None:
    """Refuse with a ValueError what has no frames, or too many."""
    if num_frames < 1:
        raise ValueError("it has no frames")
    if num_frames > MAX_FRAMES:
        raise ValueError(f"it has {num_frames} frames, more than the {MAX_FRAMES} that are allowed")


def reason_of(error: Exception) -> str:
    """Why bytes cannot be used, in one line: ours are ValueErrors, all else are readers in trouble."""
    if isinstance(error, av.FFmpegError):
        return f"it is damaged: {error.strerror}"
    return one_line(error) if isinstance(error, ValueError) else f"it is damaged: {one_line(error)}"


def one_line(error: Exception) -> str:
    """Its text, or its class where it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__
