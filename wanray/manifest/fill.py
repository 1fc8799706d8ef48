"""Fills what rows leave out: their own value, else the job's (config, else official)."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.columns import COLUMNS
from wanray.manifest.rows import column
from wanray.manifest.settings import JobValues
from wanray.manifest.tasks import takes
from wanray.manifest.validate import split_size

FILLED = ("prompt", "negative_prompt", "steps", "solver", "priority")
"""Columns whose null means the job's value, whatever the other columns say."""
FROM_SOURCE = ("num_frames", "fps")
"""Columns that a source video tells where neither row nor config does."""


def fill(table: pa.Table, tasks: pa.Array, job: JobValues) -> pa.Table:
    """The resolved columns of normalised rows.

    `size` becomes width and height, `guidance` becomes guidance_high and guidance_low; a row's `seed` or
    `seeds` stands for both. Null stay: a seed that nobody gave, a shift that the size decides, an area that
    is width x height, and what the row's source video decides.
    """
    values = job.values
    columns = {name: _or_value(column(table, name), values[name]) for name in FILLED}
    columns["prompt"] = columns["prompt"].fill_null("")  # left to a model that describes the image
    columns |= _sizes(table, job) | _seeds(table, values) | _conditions(table, tasks, job)
    sized = bool(job.shift_by_area)
    columns["shift"] = _or_value(column(table, "shift"), None if sized else values["shift"])
    guidance = column(table, "guidance")
    for expert in ("high", "low"):
        columns[f"guidance_{expert}"] = _or_value(
            pc.struct_field(guidance, expert), values["guidance"][expert]
        )
    return pa.table(columns | _lengths(table, job) | {"task": tasks})


def _sizes(table: pa.Table, job: JobValues) -> dict[str, pa.Array]:
    """Width, height and max_area; a size of the row's own excludes the area of the config."""
    area, columns = column(table, "max_area"), {}
    own = pa.repeat(pa.scalar(False), len(table))
    for name, side in zip(("width", "height"), split_size(column(table, "size")), strict=True):
        given = pc.coalesce(column(table, name), side)
        own = pc.or_(own, pc.is_valid(given))
        columns[name] = _or_value(given, job.values[name])
    job_area = pa.scalar(job.values["max_area"], area.type)
    return columns | {"max_area": pc.coalesce(area, pc.if_else(own, pa.scalar(None, area.type), job_area))}


def _lengths(table: pa.Table, job: JobValues) -> dict[str, pa.Array]:
    """Number of frames and fps; null where the source video will tell."""
    has_source, columns = pc.is_valid(column(table, "video")), {}
    for name in FROM_SOURCE:
        own = column(table, name)
        filled = _or_value(own, job.values[name])
        columns[name] = filled if name in job.given else pc.if_else(has_source, own, filled)
    return columns


def _conditions(table: pa.Table, tasks: pa.Array, job: JobValues) -> dict[str, pa.Array]:
    """What only some tasks have; null for the others, so that it is not part of their key."""
    scale = _or_value(column(table, "context_scale"), job.values["context_scale"])
    sampling = _or_value(column(table, "video_sampling"), job.values["video_sampling"])
    has_source = pc.is_valid(column(table, "video"))
    return {
        "context_scale": _only(takes(tasks, "context_scale"), scale),
        "video_sampling": _only(pc.and_(takes(tasks, "video_sampling"), has_source), sampling),
    }


def _only(mask: pa.Array, array: pa.Array) -> pa.Array:
    return pc.if_else(mask, array, pa.scalar(None, array.type))


def _seeds(table: pa.Table, values: dict[str, Any]) -> dict[str, pa.Array]:
    seed, seeds = column(table, "seed"), column(table, "seeds")
    neither = pc.and_(pc.is_null(seed), pc.is_null(seeds))
    job_seed, job_seeds = (pa.scalar(values[name], COLUMNS[name].type) for name in ("seed", "seeds"))
    return {
        "seed": pc.if_else(neither, job_seed, seed),
        "seeds": pc.if_else(neither, job_seeds, seeds),
    }


def _or_value(array: pa.Array, value: Any) -> pa.Array:
    return array if value is None else pc.coalesce(array, pa.scalar(value, array.type))
