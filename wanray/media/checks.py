"""How much of anything is accepted, and how it is said that something is not."""

import av

MAX_PIXELS = 100_000_000
"""Of one picture: a larger one is taken for an attack on the memory."""
MAX_FRAMES = 100_000
"""Of one video: more than an hour at 24 frames per second."""


def check_size(width: int, height: int) -> None:
    """Refuse with a ValueError what has no pixels, or too many."""
    if width < 1 or height < 1:
        raise ValueError(f"it has no pixels: {width}x{height}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width}x{height} pixels, more than the {MAX_PIXELS} that are allowed")


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
    return " ".join(str(error).split()) or type(error).__name__
