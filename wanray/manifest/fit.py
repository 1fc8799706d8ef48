"""What media decide: the size of the clip, its frames and fps; and rules between the media of a row.

Follows the official sizing (`wanray.sizing`); under `numerics.mode=diffusers` a size is what it says.
"""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.manifest.expand import replace_column
from wanray.manifest.media import Media, Medium
from wanray.manifest.problems import Problem
from wanray.manifest.settings import JobValues
from wanray.records import canonical_json
from wanray.registry import TASKS, Model
from wanray.sizing import area_size, cover_fit, cut_fit, reference_fit, vace_fit

ASPECT_TOLERANCE = 0.01
"""Two images have one aspect if their sides' ratios differ by less than this share."""

MAX_SIDE = 8192
"""Pixels; as for sizes that rows give."""

FITTED = ("width", "height", "num_frames", "fps")

RowMedia = dict[str, tuple[Medium, ...]]


@dataclass(frozen=True, slots=True)
class Fitter:
    """What is the same for all rows of a job."""

    model: Model
    mode: str
    """`numerics.mode`."""
    job: JobValues


def check_pairs(media: Media) -> list[Problem]:
    """Rules between the media of a row that hold whatever its size."""
    return [
        Problem(row, "", name, says) for row, columns in media.items() for name, says in _pair_rules(columns)
    ]


def _pair_rules(media: RowMedia) -> Iterator[tuple[str, str]]:
    video, mask = _one(media, "video"), _one(media, "mask")
    if video and mask and _size(video) != _size(mask):
        yield "mask", f"must have the size of the video, {_words(video)}, got {_words(mask)}"
    if video and mask and 1 < mask.num_frames < video.num_frames:
        yield (
            "mask",
            f"must be one image or have the video's {video.num_frames} frames, got {mask.num_frames}",
        )
    first, last = _one(media, "image"), _one(media, "last_image")
    if first and last and not _same_aspect(first, last):
        yield "last_image", f"must have the aspect of image, {_words(first)}, got {_words(last)}: crop one"


def _same_aspect(one: Medium, other: Medium) -> bool:
    ratio = (one.width * other.height) / (other.width * one.height)
    return abs(ratio - 1) < ASPECT_TOLERANCE


def fit(
    table: pa.Table, media: Media, key_frames: dict[int, list[int]], fitter: Fitter
) -> tuple[pa.Table, list[Problem]]:
    """The expanded rows with all that their media decide, and a problem for each that cannot be fitted.

    `media` and `key_frames` go by the column `row` of `table`; so do the problems, whose rows are left out.
    Columns are added: `inputs`, `sources`, `key_frames` (canonical JSON).
    """
    table = replace_column(table, "shift", _shifts(table, fitter.job))
    table = replace_column(table, "num_frames", _single_frames(table))
    table = table.append_column("key_frames", pa.repeat("[]", len(table)))
    for name in ("inputs", "sources"):
        table = table.append_column(name, pa.repeat("{}", len(table)))
    rows = flat(table["row"]).to_pylist()
    with_media = [index for index, row in enumerate(rows) if row in media]
    return _fit_rows(table, with_media, media, key_frames, fitter) if with_media else (table, [])


def _shifts(table: pa.Table, job: JobValues) -> pa.Array:
    """The shift of each row: its own, else by the area that was asked for, else the job's."""
    shift = flat(table["shift"])
    asked = pc.coalesce(flat(table["max_area"]), pc.multiply(flat(table["width"]), flat(table["height"])))
    for area, value in job.shift_by_area.items():
        shift = pc.coalesce(shift, pc.if_else(pc.equal(asked, area), value, pa.scalar(None, pa.float64())))
    return shift.fill_null(job.values["shift"])


def _single_frames(table: pa.Table) -> pa.Array:
    """The number of frames; a task with one has one, whatever job and sweep say."""
    frames, tasks = flat(table["num_frames"]), flat(table["task"])
    for task in TASKS.values():
        if task.max_frames is not None:
            frames = pc.if_else(pc.equal(tasks, task.name), task.max_frames, frames)
    return frames


def _fit_rows(
    table: pa.Table, indices: list[int], media: Media, key_frames: dict[int, list[int]], fitter: Fitter
) -> tuple[pa.Table, list[Problem]]:
    names = (*FITTED, "inputs", "sources", "key_frames")
    columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in names}
    asked = table.select([*FITTED, "row", "id", "max_area", "task", "video_sampling"]).take(pa.array(indices))
    problems, unfit = [], []
    for index, values in zip(indices, asked.to_pylist(), strict=True):
        own, frames = media[values["row"]], key_frames.get(values["row"], [])
        try:
            fitted = fit_row(values, own, frames, fitter)
        except UnfitError as error:
            problems.append(Problem(values["row"], "", error.column, f"{error}{_variant(values['id'])}"))
            unfit.append(index)
            continue
        for name, value in {**fitted, **_references(own), "key_frames": canonical_json(frames)}.items():
            columns[name][index] = value
    for name, values in columns.items():
        table = replace_column(table, name, pa.array(values, table[name].type))
    return table.filter(
        pc.invert(pc.is_in(pa.array(range(len(table))), pa.array(unfit, pa.int64())))
    ), problems


def _variant(identifier: str) -> str:
    """Which of a row's seeds and combinations is meant, where it has several."""
    return f" (in {identifier})" if "#" in identifier else ""


def _references(media: RowMedia) -> dict[str, str]:
    """What the request says of its media, and where a worker finds them."""
    inputs = {name: [item.sha256 for item in items] for name, items in media.items()}
    sources = {item.sha256: item.uri for items in media.values() for item in items}
    return {"inputs": canonical_json(inputs), "sources": canonical_json(sources)}


class UnfitError(ValueError):
    """A row whose media leave nothing to render; `column` is the one to blame."""

    column = ""

    @staticmethod
    def of(column: str, message: str) -> "UnfitError":
        """The error with its column."""
        error = UnfitError(message)
        error.column = column
        return error


def fit_row(values: dict[str, Any], media: RowMedia, key_frames: list[int], fitter: Fitter) -> dict[str, Any]:
    """Width, height, num_frames and fps of one row with media; `values` has what was asked for.

    Raises:
        UnfitError: nothing can be rendered so.
    """
    if _one(media, "video"):
        fitted = _fit_video(values, media, fitter)
    else:
        fitted = {name: values[name] for name in FITTED} | _fit_image(values, media, fitter)
    _check_size(values, media, fitted, fitter)
    _check_frames(media, key_frames, values["task"], fitted["num_frames"])
    _check_references(media, fitted, fitter)
    return fitted


def _fit_image(values: dict[str, Any], media: RowMedia, fitter: Fitter) -> dict[str, int]:
    """The size that follows the first image's aspect; reference images decide none."""
    image = _one(media, "image") or _one(media, "key_images") or _one(media, "last_image")
    if image is None or (fitter.mode == "diffusers" and values["max_area"] is None):
        return {}
    if values["task"] == "vace":
        width, height = vace_fit(image.width, image.height, 1, 1.0, _area(values)).size
    elif fitter.model.has_token_timesteps:
        width, height = cover_fit(*_size(image), _area(values), fitter.model.size_multiple_px).size
    else:
        width, height = area_size(*_size(image), _area(values))
    return {"width": width, "height": height}


def _fit_video(values: dict[str, Any], media: RowMedia, fitter: Fitter) -> dict[str, Any]:
    """Size, frames and fps that follow the source video's."""
    video = media["video"][0]
    source = (video.width, video.height, video.num_frames, video.fps)
    most = values["num_frames"]
    if values["video_sampling"] == "cut":
        fps = values["fps"] or fitter.model.defaults.fps
        found = cut_fit(*source, fps, _area(values), most or fitter.model.defaults.num_frames)
    else:
        found = vace_fit(*source, _area(values), most)
    size = found.size
    if fitter.mode == "diffusers" and values["max_area"] is None:
        size = _pipeline_size(video, values, fitter.model.size_multiple_px)
    fps = values["fps"] or found.fps
    return {"width": size[0], "height": size[1], "num_frames": len(found.frame_ids), "fps": fps}


def _pipeline_size(video: Medium, values: dict[str, Any], multiple: int) -> tuple[int, int]:
    """Size to which diffusers' WanVACEPipeline brings a source video: shrunk to fit, rounded down."""
    width, height = _size(video)
    if width * height > values["width"] * values["height"]:
        scale = min(values["width"] / width, values["height"] / height)
        width, height = int(width * scale), int(height * scale)
    return width // multiple * multiple, height // multiple * multiple


def _check_size(values: dict[str, Any], media: RowMedia, fitted: dict[str, Any], fitter: Fitter) -> None:
    """The size that follows an image or a video must be one that can be rendered."""
    column = next(name for name in ("video", "image", "key_images", "last_image", *media) if name in media)
    words, area, multiple = _words(media[column][0]), _area(values), fitter.model.size_multiple_px
    if min(fitted["width"], fitted["height"]) < multiple:
        remedy = "enlarge" if max(media[column][0].width, media[column][0].height) < multiple else "crop"
        raise UnfitError.of(
            column, f"leaves no {_short_side(fitted)} under {area} pixels, got {words}: {remedy} it"
        )
    if max(fitted["width"], fitted["height"]) > MAX_SIDE:
        raise UnfitError.of(column, f"would have a side above {MAX_SIDE} pixels, got {words}: crop it")


def _check_references(media: RowMedia, fitted: dict[str, Any], fitter: Fitter) -> None:
    """Every reference must leave at least a pixel on its canvas."""
    for item in media.get("reference_images", ()):
        stride = fitter.model.spatial_stride if fitter.mode == "diffusers" else 1
        size = item.width // stride * stride, item.height // stride * stride
        canvas = fitted["width"], fitted["height"]
        if 0 in size or 0 in reference_fit(*size, *canvas).pasted_size:
            says = f"must not vanish on a canvas of {canvas[0]}x{canvas[1]}, got {_words(item)}: crop it"
            raise UnfitError.of("reference_images", says)


def _check_frames(media: RowMedia, key_frames: list[int], task: str, num_frames: int) -> None:
    fewest = TASKS[task].min_frames
    if num_frames < fewest:
        raise UnfitError.of("num_frames", f"must be at least {fewest} for task {task}, got {num_frames}")
    ends = [0] * ("image" in media and "video" not in media) + [-1] * ("last_image" in media)
    outside = [index for index in key_frames if not -num_frames <= index < num_frames]
    if outside:
        raise UnfitError.of("key_frames", f"must be {-num_frames} to {num_frames - 1}, got {outside[0]}")
    if len({index % num_frames for index in ends + key_frames}) < len(ends + key_frames):
        if not key_frames:
            raise UnfitError.of("last_image", "must be another frame than image, but num_frames is 1")
        says = f"must name each frame once (image is 0, last_image -1), got {key_frames}"
        raise UnfitError.of("key_frames", says)


def _one(media: RowMedia, name: str) -> Medium | None:
    return media[name][0] if name in media else None


def _area(values: dict[str, Any]) -> int:
    return values["max_area"] or values["width"] * values["height"]


def _size(medium: Medium) -> tuple[int, int]:
    return medium.width, medium.height


def _words(medium: Medium) -> str:
    return f"{medium.width}x{medium.height}"


def _short_side(fitted: dict[str, Any]) -> str:
    return "width" if fitted["width"] < fitted["height"] else "height"
