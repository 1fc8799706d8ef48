"""Fills what rows leave out: their own value, else the job's (config, else official)."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.manifest.columns import COLUMNS
from wanray.manifest.validate import split_size

FILLED = ("prompt", "negative_prompt", "task", "num_frames", "fps", "steps", "shift", "solver", "priority")
"""Columns whose null means the job's value, whatever the other columns say."""


def fill(table: pa.Table, values: dict[str, Any]) -> pa.Table:
    """The resolved columns of normalised rows.

    `size` becomes width and height, `guidance` becomes guidance_high and guidance_low; a row's `seed` or
    `seeds` stands for both. `seed` stays null where nobody gave one.
    """
    columns = {name: _or_value(_column(table, name), values[name]) for name in FILLED}
    for name, side in zip(("width", "height"), split_size(_column(table, "size")), strict=True):
        columns[name] = _or_value(pc.coalesce(_column(table, name), side), values[name])
    guidance = _column(table, "guidance")
    for expert in ("high", "low"):
        columns[f"guidance_{expert}"] = _or_value(
            pc.struct_field(guidance, expert), values["guidance"][expert]
        )
    return pa.table(columns | _seeds(table, values))


def _seeds(table: pa.Table, values: dict[str, Any]) -> dict[str, pa.Array]:
    seed, seeds = _column(table, "seed"), _column(table, "seeds")
    neither = pc.and_(pc.is_null(seed), pc.is_null(seeds))
    job_seed, job_seeds = (pa.scalar(values[name], COLUMNS[name].type) for name in ("seed", "seeds"))
    return {
        "seed": pc.if_else(neither, job_seed, seed),
        "seeds": pc.if_else(neither, job_seeds, seeds),
    }


def _column(table: pa.Table, name: str) -> pa.Array:
    return flat(table[name]) if name in table.column_names else pa.nulls(len(table), COLUMNS[name].type)


def _or_value(array: pa.Array, value: Any) -> pa.Array:
    return array if value is None else pc.coalesce(array, pa.scalar(value, array.type))
