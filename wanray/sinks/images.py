"""Frames become image files: one still, a folder of PNG, an animated GIF or WebP. Nothing is stored here.

Frames are uint8 [height, width, 3], red, green, blue.
"""

import io
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wanray.sinks.encoded import Encoded, encoded_file, encoded_folder
from wanray.sinks.mux import mux_video, to_picture

_PNG_EFFORT = 4
"""Of zlib's 9: twice as fast as its usual 6, and as small within 2 %."""
_WEBP_QUALITY = "90"
_FOREVER = {"loop": "0"}


def encode_still(frames: Iterable[np.ndarray], suffix: str, metadata: Mapping[str, str]) -> Encoded:
    """The one frame of an image request, lossless; `suffix` is png, which carries `metadata`, or webp."""
    (frame_HWC,) = frames
    data = _to_png(frame_HWC, metadata) if suffix == "png" else _to_webp(frame_HWC)
    return encoded_file("image", suffix, data, codec=suffix, num_frames=1)


def encode_png_sequence(frames: Iterable[np.ndarray]) -> Encoded:
    """A PNG per frame."""
    return encoded_folder([_to_png(frame_HWC, {}) for frame_HWC in frames], codec="png")


def encode_gif(frames: Iterable[np.ndarray], rate: Fraction) -> Encoded:
    """A GIF that loops, with 256 colours of its own for every frame.

    It counts in 1/100 s: starts of frames are rounded, so that their sum is right to 1/100 s. Players slow
    down above 50 frames per second.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="gif", options=_FOREVER) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.pix_fmt = "pal8"
        num_frames = mux_video(container, stream, map(_to_palette, frames))
    return encoded_file("video", "gif", file.getvalue(), codec="gif", num_frames=num_frames)


def encode_webp(frames: Iterable[np.ndarray], rate: Fraction) -> Encoded:
    """An animated WebP that loops; of frames that are equal it shows the first for longer."""
    file = io.BytesIO()
    with av.open(file, "w", format="webp", options=_FOREVER) as container:
        stream = container.add_stream("libwebp_anim", rate=rate, options={"quality": _WEBP_QUALITY})
        stream.pix_fmt = "bgra"
        pictures = (to_picture(frame_HWC).reformat(format="bgra") for frame_HWC in frames)
        num_frames = mux_video(container, stream, pictures)
    return encoded_file("video", "webp", file.getvalue(), codec="webp", num_frames=num_frames)


def _to_png(frame_HWC: np.ndarray, metadata: Mapping[str, str]) -> bytes:
    info = PngInfo()
    for name, text in metadata.items():
        info.add_itxt(name.capitalize(), text)
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "PNG", pnginfo=info, compress_level=_PNG_EFFORT)
    return file.getvalue()


def _to_webp(frame_HWC: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "WEBP", lossless=True, exact=True)
    return file.getvalue()


def _to_palette(frame_HWC: np.ndarray) -> av.VideoFrame:
    """A frame in 256 colours of its own, dithered: it need not wait for the others, and moves need it."""
    image = Image.fromarray(frame_HWC)
    few = image.reduce(2).quantize(method=Image.Quantize.FASTOCTREE)
    indices_HW = np.asarray(image.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG))
    palette_P4 = np.full((256, 4), 255, dtype=np.uint8)
    colours = np.array(few.getpalette(), dtype=np.uint8).reshape(-1, 3)
    palette_P4[: len(colours), 1:] = colours
    pal8: Any = (indices_HW, palette_P4)
    return av.VideoFrame.from_ndarray(pal8, format="pal8")
