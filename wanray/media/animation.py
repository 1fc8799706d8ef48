"""Still and animated images in the place of a video. Knows Pillow's frames and how long they last."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import ImageFile

from wanray.media.checks import MAX_ANIMATION_PIXELS, check_num_frames, reason_of, room_for
from wanray.media.image import num_frames_of, open_image
from wanray.media.info import VideoInfo
from wanray.media.pixels import to_rgb, upright_size

STILL_FPS = 16.0
"""Of a single picture, which has no rate."""
_FRAME_MS = 100
"""Of a frame whose file does not say how long it lasts, as browsers do."""


def probe_animation(data: bytes) -> VideoInfo:
    """As probe_video. The durations of frames stand among their pixels, so an animation is decoded."""
    with open_image(data) as image:
        try:
            return _info(image, data)
        except Exception as error:  # as in probe_image
            raise ValueError(reason_of(error)) from error


def animation_frames(data: bytes) -> Iterator[Callable[[], np.ndarray]]:
    """As stream_frames."""
    with open_image(data) as image:
        for frame in range(num_frames_of(image, data)):
            image.seek(frame)
            yield lambda: to_rgb(image)


def _info(image: ImageFile.ImageFile, data: bytes) -> VideoInfo:
    width, height = upright_size(image, data)
    num_frames = num_frames_of(image, data)
    check_num_frames(num_frames)
    fps = STILL_FPS if num_frames == 1 else 1000 * num_frames / _duration_ms(image, num_frames)
    return VideoInfo(
        width=width,
        height=height,
        num_frames=num_frames,
        fps=fps,
        has_audio=False,
        duration_s=num_frames / fps,
    )


def _duration_ms(image: ImageFile.ImageFile, num_frames: int) -> float:
    total_ms = 0.0
    for frame in range(num_frames):
        if num_frames * image.width * image.height > MAX_ANIMATION_PIXELS:  # a GIF may grow on the way
            raise ValueError(
                f"its {num_frames} frames of {image.width}x{image.height} have more than the "
                f"{MAX_ANIMATION_PIXELS} pixels that are allowed: store it as a video"
            )
        with room_for(image.width * image.height):
            image.seek(frame)
            image.load()  # WebP and AVIF know a frame's duration only then
        total_ms += image.info.get("duration") or _FRAME_MS
    return total_ms
