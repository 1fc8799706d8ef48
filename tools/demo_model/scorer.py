"""Judges a clip by its pixels: what moves where, in which colour, on what ground. numpy only.

Frames are uint8 or float 0..1, [F, H, W, 3].
"""

import math
from dataclasses import dataclass

import numpy as np

from tools.demo_model.scenes import BACKGROUNDS, COLOURS, DIRECTIONS

PALETTE = COLOURS | BACKGROUNDS
FOREGROUND = 0.2
"""Pixels whose colour is so far (in RGB of 0..1) from the background's tell the colour of the shape."""
LEAST_PIXELS = 20
LEAST_TRAVEL = 0.15
"""In widths or heights of the clip; less is no direction."""
FILLS = {"circle": 0.8, "square": 0.98, "triangle": 0.6}
"""What share of its box a shape covers, measured; a box is a little smaller than the shape."""
BOX_PIXELS = 2
"""Rows and columns with fewer pixels of the shape are no part of its box: a stray one is noise."""
KEPT_SHARE = 0.8
"""A shape is kept if so many of the frames show it."""
STAIN = 0.15
"""A pixel so far (in RGB of 0..1) from every mixture of the shape's colour and the background's is one."""
CLEAN_SHARE = 0.97
"""A clip is clean if so many of its pixels are no stains."""
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a clip shows, in the words of prompts; `nothing` where there is none of it."""

    colour: str
    shape: str
    direction: str
    background: str


def look(frames_FHWC: np.ndarray) -> Seen:
    """What a clip shows."""
    video_FHWC = _unit(frames_FHWC)
    ground_C = _border_colour(video_FHWC)
    background = _nearest(ground_C, BACKGROUNDS)
    other_FHW = np.linalg.norm(video_FHWC - ground_C, axis=-1) > FOREGROUND
    if not other_FHW.any():
        return Seen(NOTHING, NOTHING, NOTHING, background)
    colour_C = np.median(video_FHWC[_eroded(other_FHW)], axis=0)
    mask_FHW = (video_FHWC - ground_C) @ (colour_C - ground_C) > np.square(colour_C - ground_C).sum() / 2
    if (mask_FHW.sum(axis=(1, 2)) < LEAST_PIXELS).any():
        return Seen(NOTHING, NOTHING, NOTHING, background)
    return Seen(_nearest(colour_C, COLOURS), _kept_shape(mask_FHW), _direction(mask_FHW), background)


def is_clean(frames_FHWC: np.ndarray, colour: str, background: str) -> bool:
    """Whether a clip shows hardly anything but these two colours, and what lies between them at edges."""
    shape_C, ground_C = (np.array(PALETTE[name]) / 255 for name in (colour, background))
    way_C, off_FHWC = shape_C - ground_C, _unit(frames_FHWC) - ground_C
    along_FHW1 = np.clip(off_FHWC @ way_C / (way_C @ way_C), 0, 1)[..., None]
    is_stain_FHW = np.linalg.norm(off_FHWC - along_FHW1 * way_C, axis=-1) > STAIN
    return bool(1 - is_stain_FHW.mean() >= CLEAN_SHARE)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Of two images or clips, in dB; infinite where they are equal."""
    error = np.square(_unit(one) - _unit(other)).mean()
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def _unit(pixels: np.ndarray) -> np.ndarray:
    return pixels / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float64)


def _border_colour(video_FHWC: np.ndarray) -> np.ndarray:
    """The median colour along the four edges: a shape may touch one of them."""
    edges = [video_FHWC[:, 0], video_FHWC[:, -1], video_FHWC[:, :, 0], video_FHWC[:, :, -1]]
    return np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)


def _nearest(colour_C: np.ndarray, names: dict[str, tuple[int, int, int]]) -> str:
    return min(names, key=lambda name: float(np.linalg.norm(colour_C - np.array(names[name]) / 255)))


def _eroded(mask_FHW: np.ndarray) -> np.ndarray:
    """Without the pixels at the rim, whose colour is mixed; all of them where nothing else is left."""
    inner_FHW = mask_FHW.copy()
    for axis in (1, 2):
        for shift in (1, -1):
            inner_FHW &= np.roll(mask_FHW, shift, axis)
    return inner_FHW if inner_FHW.any() else mask_FHW


def _direction(mask_FHW: np.ndarray) -> str:
    """Where the middle of the shape goes from the first frame to the last."""
    first_XY, last_XY = _centre(mask_FHW[0]), _centre(mask_FHW[-1])
    way_XY = (last_XY - first_XY) / np.array(mask_FHW.shape[:0:-1])
    name = max(DIRECTIONS, key=lambda name: float(way_XY @ DIRECTIONS[name]))
    return name if way_XY @ DIRECTIONS[name] >= LEAST_TRAVEL else NOTHING


def _centre(mask_HW: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask_HW)
    return np.array([xs.mean(), ys.mean()])


def _kept_shape(mask_FHW: np.ndarray) -> str:
    """The shape that most frames show, if nearly all of them do."""
    shapes = [_shape(mask_HW) for mask_HW in mask_FHW]
    most = max(FILLS, key=shapes.count)
    return most if shapes.count(most) >= KEPT_SHARE * len(shapes) else NOTHING


def _shape(mask_HW: np.ndarray) -> str:
    sides = [np.nonzero(mask_HW.sum(axis=axis) >= BOX_PIXELS)[0] for axis in (0, 1)]
    box = math.prod(int(np.ptp(side)) + 1 for side in sides if len(side))
    return min(FILLS, key=lambda name: abs(FILLS[name] - mask_HW.sum() / box))
