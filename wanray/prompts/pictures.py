"""Images as the parts of a message that a vision language model is sent."""

import base64
import io
from math import sqrt

import numpy as np
from PIL import Image

MAX_PIXELS = 512 * 512
"""Of an image that is sent, as in Wan's own prompt extension (wan/utils/prompt_extend.py)."""


def data_url(rgb_HWC: np.ndarray) -> str:
    """The image as a PNG in a `data:` URL, made smaller where it has more than MAX_PIXELS.

    rgb_HWC: uint8.
    """
    image = Image.fromarray(rgb_HWC)
    file = io.BytesIO()
    image.resize(_fitted(image.width, image.height)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _fitted(width: int, height: int) -> tuple[int, int]:
    """The size in pixels under MAX_PIXELS, with the same aspect."""
    ratio = min(1.0, sqrt(MAX_PIXELS / (width * height)))
    return max(1, int(width * ratio)), max(1, int(height * ratio))
