"""Reads the images and videos that requests name: bytes in, headers and RGB pixels out.

Knows files and formats; nothing of models, sizes to render or torch.
"""

from wanray.media.allowed import MediaRules, allowed
from wanray.media.checks import MAX_FRAMES, MAX_PIXELS
from wanray.media.image import LoadedImage, load_image, probe_image
from wanray.media.info import ImageInfo, VideoInfo
from wanray.media.source import (
    MAX_IMAGE_BYTES,
    MAX_VIDEO_BYTES,
    TooLargeError,
    digest,
    read_media,
    shown,
    stamp_of,
)
from wanray.media.video import probe_video, read_frames

__all__ = [
    "MAX_FRAMES",
    "MAX_IMAGE_BYTES",
    "MAX_PIXELS",
    "MAX_VIDEO_BYTES",
    "ImageInfo",
    "LoadedImage",
    "MediaRules",
    "TooLargeError",
    "VideoInfo",
    "allowed",
    "digest",
    "load_image",
    "probe_image",
    "probe_video",
    "read_frames",
    "read_media",
    "shown",
    "stamp_of",
]
