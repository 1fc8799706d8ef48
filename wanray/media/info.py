"""What is known of images and videos from their headers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInfo:
    """What an image's header says."""

    width: int
    height: int
    """Both in pixels, of the upright image."""
    format: str
    """Pillow's name: PNG, JPEG, ..."""
    num_frames: int
    notes: tuple[str, ...]
    """What its author should know about how it is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video's header and the list of its packets say."""

    width: int
    height: int
    """Both in pixels, of the upright picture."""
    num_frames: int
    fps: float
    """On average, where the rate varies."""
    has_audio: bool
    duration_s: float
    """How long the frames last at `fps`."""
