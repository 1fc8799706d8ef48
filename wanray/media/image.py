"""Still images, as a user expects to see them.

Knows Pillow's readers; what becomes of the pixels is in `pixels`.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from wanray.errors import InputError
from wanray.media.checks import MAX_PIXELS, check_num_frames, check_size, one_line, reason_of
from wanray.media.info import ImageInfo
from wanray.media.pixels import to_rgb, upright_size

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names of what is read. It knows more, and runs other programs for some of them."""

MAX_PAGES = 1000
"""Of a TIFF: what is behind them is not looked at."""
_GIF_FRAME = b"\0,"
"""The end of a block and the start of a frame (GIF89a, 20); in compressed data it is rare."""

# Pillow's own limit remains for tiles and frames within an image; up to twice as many it only warns.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedImage:
    """A decoded image."""

    rgb_HWC: np.ndarray
    """uint8."""
    notes: tuple[str, ...]
    """As in ImageInfo."""


def probe_image(data: bytes) -> ImageInfo:
    """What the header says; pixels are decoded only of a PNG that may tell its orientation behind them.

    Raises:
        ValueError: it is no image, or none that can be used; the message is the reason, without a name.
    """
    with open_image(data) as image:
        try:
            width, height = upright_size(image, data)
            num_frames = num_frames_of(image, data)
        except Exception as error:  # Pillow raises whatever the bytes make it stumble over
            raise ValueError(reason_of(error)) from error
        return ImageInfo(
            width=width,
            height=height,
            format=image.format or "",
            num_frames=num_frames,
            notes=_notes(num_frames),
        )


def load_image(data: bytes) -> LoadedImage:
    """The whole image, upright, over white where it is transparent; of an animation its first frame.

    Raises:
        InputError: it is no image, or it is damaged; the message is the reason, without a name.
    """
    try:
        with open_image(data) as image:
            rgb_HWC = to_rgb(image)
            return LoadedImage(rgb_HWC=rgb_HWC, notes=_notes(num_frames_of(image, data)))
    except Exception as error:
        raise InputError(reason_of(error)) from error


def format_of(data: bytes) -> str | None:
    """The one of FORMATS that the first bytes tell; None if it is no such image."""
    Image.init()
    for name in FORMATS:
        accept = Image.OPEN[name][1]
        if accept is not None and accept(data[:16]) is True:
            return name
    return None


def open_image(data: bytes) -> ImageFile.ImageFile:
    """The image with its header read, to be closed by the caller.

    Raises:
        ValueError: as in probe_image.
    """
    name = format_of(data)
    if name is None:
        raise ValueError(f"it is no image of a known format ({', '.join(FORMATS)})")
    # Not Image.open: it warns of large images, and takes a JPEG with previews for an animation.
    reader = JpegImagePlugin.JpegImageFile if name == "JPEG" else Image.OPEN[name][0]
    try:
        image = reader(io.BytesIO(data), "")
    except Exception as error:
        raise ValueError(f"it is a damaged {name}: {one_line(error)}") from error
    check_size(*image.size)
    return image


def num_frames_of(image: ImageFile.ImageFile, data: bytes) -> int:
    """How many frames, or pages up to MAX_PAGES, it has, of an image that was opened from `data`.

    Raises:
        ValueError: too many to count.
    """
    if image.format == "TIFF":
        return _num_pages(image)
    if image.format == "GIF":
        check_num_frames(max(1, data.count(_GIF_FRAME)))  # Pillow takes its time to count them
    return getattr(image, "n_frames", 1)


def _num_pages(image: ImageFile.ImageFile) -> int:
    """Pillow's own count takes the square of their number in time."""
    num_pages = 1
    try:
        while num_pages < MAX_PAGES:
            image.seek(num_pages)
            num_pages += 1
    except EOFError:
        return num_pages
    finally:
        image.seek(0)
    return num_pages


def _notes(num_frames: int) -> tuple[str, ...]:
    return (f"animated: the first of {num_frames} frames is used",) if num_frames > 1 else ()
