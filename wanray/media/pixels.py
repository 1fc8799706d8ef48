"""From Pillow's many modes to upright RGB of 8 bits.

Array suffixes: H height, W width, C channels.
"""

import numpy as np
from PIL import ExifTags, Image, ImageFile

from wanray.media.checks import room_for

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each EXIF orientation needs to stand upright."""
_QUARTER_TURNS = (5, 6, 7, 8)
_PNG_ORIENTATIONS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Without any of these a PNG has no orientation."""
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Grey with more than 8 bits."""


def upright_size(image: ImageFile.ImageFile, data: bytes) -> tuple[int, int]:
    """(width, height) in pixels after `to_rgb`, of an image that was opened from `data`."""
    width, height = image.size
    # Pillow decodes a PNG before it tells the orientation, which may stand behind the pixels.
    if image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATIONS):
        return width, height
    with room_for(width * height):
        return (height, width) if _orientation(image) in _QUARTER_TURNS else (width, height)


def to_rgb(image: ImageFile.ImageFile) -> np.ndarray:
    """The image's current frame as uint8 [H, W, 3]: upright, and over white where it is transparent.

    Raises:
        ValueError: its samples have no agreed meaning as colours.
    """
    image.load()
    rgb = _flat(image)
    turn = _TURNS.get(_orientation(image))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation that is still to be applied: Pillow turns TIFFs itself."""
    if image.format == "TIFF":
        return 1
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - unreadable EXIF is common; like viewers, do without
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """As mode RGB."""
    if image.mode == "F":
        raise ValueError("its samples are floats, whose range is unknown: store 8 or 16 bits")
    if image.mode in _DEEP_MODES:
        return _from_16_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """65535 becomes 255; Pillow's own conversion would clip."""
    grey_HW = np.asarray(image).astype(np.int32)
    if grey_HW.min() < 0 or grey_HW.max() > 65535:
        raise ValueError("its samples have more than 16 bits: store 8 or 16")
    levels_HW = ((grey_HW * 255 + 32767) // 65535).astype(np.uint8)
    if "transparency" in image.info:
        levels_HW[grey_HW == image.info["transparency"]] = 255
    return Image.fromarray(levels_HW).convert("RGB")
