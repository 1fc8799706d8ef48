"""Reads the media of a request: the bytes that the plan saw, decoded, the right frames of a video."""

from collections.abc import Iterator, Sequence

import numpy as np

from wanray.config import MediaConfig
from wanray.errors import InputError
from wanray.media import (
    VideoInfo,
    probe_video,
    read_frames,
    shown,
)
from wanray.models.conditions import Inputs
from wanray.records import Request
from wanray.sizing import cut_frames, even_frames, even_rate
from wanray.stages.fetch import fetch, read_image

IMAGE_COLUMNS = ("image", "last_image", "key_images", "reference_images")
SAME_SPEED = 0.01
"""Share by which a clip may play faster or slower than its source and still be in time with it."""


def read_inputs(
    request: Request, sources: dict[str, str], rules: MediaConfig | None = None
) -> tuple[Inputs, tuple[str, ...]]:
    """The decoded media of a request, and what its author should know of them.

    rules: as for `fetch`.

    Raises:
        InputError: a medium is gone, changed since the plan, or broken.
    """
    images: dict[str, tuple[np.ndarray, ...]] = {}
    notes: list[str] = []
    for column in (name for name in IMAGE_COLUMNS if name in request.inputs):
        loaded = [read_image(column, sources[sha256], sha256, rules) for sha256 in request.inputs[column]]
        images[column] = tuple(image.rgb_HWC for image in loaded)
        notes += [f"{column}: {note}" for image in loaded for note in image.notes]
    frames: Iterator[np.ndarray] | None = None
    mask: Iterator[np.ndarray] | None = None
    if "video" in request.inputs:
        frames, mask, found = _read_video(request, sources, rules)
        notes += found
    return Inputs(images, frames, mask), tuple(notes)


def _read_video(
    request: Request, sources: dict[str, str], rules: MediaConfig | None
) -> tuple[Iterator[np.ndarray], Iterator[np.ndarray] | None, list[str]]:
    (sha256,) = request.inputs["video"]
    data = fetch("video", sources[sha256], sha256, rules)
    info = probe_video(data)
    ids = frame_ids(info, request)
    mask: Iterator[np.ndarray] | None = None
    if "mask" in request.inputs:
        (mask_sha256,) = request.inputs["mask"]
        mask_data = fetch("mask", sources[mask_sha256], mask_sha256, rules)
        mask_ids = ids if probe_video(mask_data).num_frames > 1 else (0,)
        mask = _frames(f"mask {shown(sources[mask_sha256])}", mask_data, mask_ids)
    return _frames(f"video {shown(sources[sha256])}", data, ids), mask, _sampling_notes(info, ids, request)


def _frames(name: str, data: bytes, ids: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames as they are decoded: at a source's size many would fill the memory."""
    try:
        yield from read_frames(data, ids)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def frame_ids(info: VideoInfo, request: Request) -> tuple[int, ...]:
    """The frames of the source that the clip is made from."""
    if request.video_sampling == "cut":
        return cut_frames(info.fps, request.fps, request.num_frames)
    return even_frames(info.num_frames, info.fps, request.num_frames)


def speed(info: VideoInfo, request: Request) -> float:
    """How many times as fast as its source the clip plays."""
    if request.video_sampling == "cut":
        return 1.0
    return request.fps / even_rate(info.num_frames, info.fps, request.num_frames)


def _sampling_notes(info: VideoInfo, ids: Sequence[int], request: Request) -> list[str]:
    """What became of frames that are not used, and of the speed."""
    notes = ["video: is a still image, so the clip has one frame"] if info.num_frames == 1 else []
    if len(ids) != info.num_frames:
        used = f"{len(ids)} of {info.num_frames} frames at {info.fps:g} fps"
        notes.append(f"video: {used} are used ({request.video_sampling})")
    if abs(speed(info, request) - 1) > SAME_SPEED:
        notes.append(f"video: plays {speed(info, request):.2f} times as fast as its source")
    return notes
