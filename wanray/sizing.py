"""Sizes, crops and frame choice of the image and video driven tasks, as the official code works them out;
lengths of texts.

Knows numbers only: no pixels, no files. Every size is (width, height) in pixels. An extreme aspect may give
a side of 0; the caller refuses it. Sources: Wan2.1 at 9737cba (`image2video.py`, `first_last_frame2video.py`,
`vace.py`, `utils/vace_processor.py`), Wan2.2 at 42bf4cf (`textimage2video.py`, `utils/utils.py`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

Size = tuple[int, int]

TOKEN_PX = 16
"""Pixels per token, each way: VAE stride 8, patch 2."""
TEMPORAL_STRIDE = 4
"""Frames per latent frame after the first."""
VACE_LATENT_FRAMES = 21
"""A VACE sequence holds this many latent frames (81 frames) of the largest area."""
TEXT_BUCKETS = (64, 128, 256, 512)
"""Tokens to which texts are padded in the encoder; longer ones are cut. Pads are masked, so they cost time
and change nothing: on a CPU embeddings have the same bits as after the official padding to 512."""
_FRAME_TOLERANCE = 1e-3
"""In frames: rates such as 30000/1001 are rounded, and must not put a frame one off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverFit:
    """An image is resized until it covers `size`, then its centre is cut out."""

    size: Size
    resize_to: Size
    crop_box: tuple[int, int, int, int]
    """(left, top, right, bottom) within the resized image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VaceFit:
    """Which frames of a source video are used, and how each becomes one of the clip."""

    size: Size
    resize_to: Size
    crop_offset: tuple[int, int]
    """(left, top) of the crop of `size` within the resized frame."""
    frame_ids: tuple[int, ...]
    """Ascending; 4n+1 of them, or none if a side of `size` is 0."""
    fps: float
    """At this rate the clip plays as fast as the source."""
    official_fps: float
    """What the official code works out: a little more than `fps` where every frame is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceFit:
    """A reference image is scaled to fit the canvas and pasted onto its middle."""

    pasted_size: Size
    pasted_at: tuple[int, int]
    """(left, top) on the canvas."""
    resized: bool
    """False where the image has the size of the canvas and is used as it is."""


def area_size(width: int, height: int, max_area: int) -> Size:
    """The size of a clip from an image (I2V, FLF2V): its aspect, at most `max_area`, multiples of 16."""
    ratio = height / width
    return _floor_side(max_area / ratio), _floor_side(max_area * ratio)


def _floor_side(squared: float) -> int:
    return int(math.sqrt(squared) // TOKEN_PX) * TOKEN_PX


def cover_fit(width: int, height: int, max_area: int, multiple: int = 32) -> CoverFit:
    """Size, resize and crop of TI2V's image: of two sizes the one whose aspect is nearer to the image's."""
    ratio = width / height
    wide = math.sqrt(max_area * ratio)
    by_width = _fill(wide, max_area, multiple)
    height_first, width_then = _fill(max_area / wide, max_area, multiple)
    by_height = width_then, height_first
    size = by_width if _stretch(by_width, ratio) < _stretch(by_height, ratio) else by_height
    resize_to, (left, top) = cover((width, height), size)
    return CoverFit(size=size, resize_to=resize_to, crop_box=(left, top, left + size[0], top + size[1]))


def _fill(side: float, max_area: int, multiple: int) -> Size:
    """`side` and the side that fills `max_area` with it, both rounded down to the multiple."""
    first = int(side // multiple) * multiple
    return first, int(max_area / first // multiple) * multiple if first else 0


def _stretch(size: Size, ratio: float) -> float:
    """By what factor the aspect of `size` misses `ratio`."""
    if 0 in size:
        return math.inf
    own = size[0] / size[1]
    return max(ratio / own, own / ratio)


def cover(source: Size, size: Size) -> tuple[Size, tuple[int, int]]:
    """The smallest size in the source's aspect that covers `size`, and where a centre crop of it starts."""
    scale = max(size[0] / source[0], size[1] / source[1])
    resized = round(source[0] * scale), round(source[1] * scale)
    return resized, ((resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2)


def vace_fit(
    width: int, height: int, num_frames: int, fps: float, max_area: int, max_frames: int | None = None
) -> VaceFit:
    """The official choice: frames spread evenly over the whole source ("adjust last").

    Args:
        num_frames: of the source; where there is a mask, of the shorter of the two.
        max_frames: at most this many (4n+1) besides what the sequence holds.
    """
    fit = _sized((width, height), num_frames, max_area, max_frames)
    count = len(fit.frame_ids)
    return replace(
        fit,
        frame_ids=even_frames(num_frames, fps, count),
        fps=even_rate(num_frames, fps, count),
        official_fps=float(count / _duration_s(num_frames, fps)),
    )


def cut_fit(
    width: int,
    height: int,
    num_frames: int,
    source_fps: float,
    fps: float,
    max_area: int,
    max_frames: int | None = 81,
) -> VaceFit:
    """The same sizes with the source's first frames at `fps`: the clip plays as fast as the source.

    Each frame is the source's latest at that time. The clip is as long as the source, at most `max_frames`.
    """
    num_lasting = math.ceil((num_frames - _FRAME_TOLERANCE) * fps / source_fps)
    fit = _sized((width, height), num_lasting, max_area, max_frames)
    frame_ids = cut_frames(source_fps, fps, len(fit.frame_ids))
    return replace(fit, frame_ids=frame_ids, fps=fps, official_fps=fps)


def even_frames(num_frames: int, fps: float, count: int) -> tuple[int, ...]:
    """`count` frames spread evenly over a source of `num_frames`, first and last included."""
    ends_s = (np.arange(1, num_frames + 1) / fps).astype(np.float32)
    times_s = np.linspace(0.0, _duration_s(num_frames, fps), count)
    return tuple(np.searchsorted(ends_s, times_s, side="left").tolist())


def even_rate(num_frames: int, fps: float, count: int) -> float:
    """Frames per second at which `even_frames` play as fast as their source."""
    return fps if count == num_frames else float(count / _duration_s(num_frames, fps))


def cut_frames(source_fps: float, fps: float, count: int) -> tuple[int, ...]:
    """The source's frames at the times of `count` frames at `fps`."""
    step = source_fps / fps
    return tuple(math.floor(k * step + _FRAME_TOLERANCE) for k in range(count))


def _duration_s(num_frames: int, fps: float) -> np.float32:
    """To the middle of the last frame."""
    return np.array([(num_frames - 1) / fps, num_frames / fps], np.float32).mean()


def _sized(source: Size, num_frames: int, max_area: int, max_frames: int | None) -> VaceFit:
    """Size and crop; `frame_ids` are as many as the clip has, their values still to be chosen."""
    width, height = source
    max_tokens = VACE_LATENT_FRAMES * max_area // TOKEN_PX**2
    area = min(max_tokens, max_area / TOKEN_PX**2, (height // TOKEN_PX) * (width // TOKEN_PX))
    num_latent = _num_latent(num_frames, max_frames, int(max_tokens / area) if area else 0)
    size = _token_size(min(area, int(max_tokens / num_latent)), height / width) if num_latent else (0, 0)
    resize_to, crop_offset = cover(source, size)
    num_used = (num_latent - 1) * TEMPORAL_STRIDE + 1 if 0 not in size else 0
    return VaceFit(
        size=size,
        resize_to=resize_to,
        crop_offset=crop_offset,
        frame_ids=tuple(range(num_used)),
        fps=0.0,
        official_fps=0.0,
    )


def _num_latent(num_frames: int, max_frames: int | None, most: int) -> int:
    """Latent frames of a clip of at most that many frames; `most` is what the sequence holds."""
    num_frames = num_frames if max_frames is None else min(num_frames, max_frames)
    return min((num_frames - 1) // TEMPORAL_STRIDE + 1, most)


def _token_size(area: float, ratio: float) -> Size:
    """The size in pixels of about `area` tokens whose height / width is about `ratio`."""
    high = round(math.sqrt(area * ratio))
    return (int(area / high) * TOKEN_PX, high * TOKEN_PX) if high else (0, 0)


def reference_fit(width: int, height: int, canvas_width: int, canvas_height: int) -> ReferenceFit:
    """Where a VACE reference image lies on its white canvas."""
    scale = min(canvas_height / height, canvas_width / width)
    pasted = int(width * scale), int(height * scale)
    left, top = (canvas_width - pasted[0]) // 2, (canvas_height - pasted[1]) // 2
    resized = (width, height) != (canvas_width, canvas_height)
    return ReferenceFit(pasted_size=pasted, pasted_at=(left, top), resized=resized)
