"""Tags: what is carried to the output with each clip. The row's own, its unknown columns, and the job's."""

import json
from typing import Any

import pyarrow as pa

from wanray.manifest.arrays import flat, python_values
from wanray.manifest.columns import unknown_columns
from wanray.manifest.values import plain
from wanray.records import canonical_json


def merged_tags(raw: pa.Table, table: pa.Table, job_tags: str | None) -> pa.Array:
    """Canonical JSON of each row's tags: its column `tags` over its unknown columns over the job's tags.

    raw: the batch as it came; table: the same rows, normalised.
    """
    unknown = unknown_columns(raw)
    given = table["tags"].to_pylist() if "tags" in table.column_names else None
    if given is None and not unknown:
        return pa.repeat(job_tags or "{}", len(raw))
    base = json.loads(job_tags or "{}")
    carried = plain_rows(raw, unknown) if unknown else [{}] * len(raw)
    own = [json.loads(tags or "{}") for tags in given or ["{}"] * len(raw)]
    merged = [canonical_json(base | row | tags) for row, tags in zip(carried, own, strict=True)]
    return pa.array(merged, pa.string())


def plain_rows(raw: pa.Table, names: list[str]) -> list[dict[str, Any]]:
    """Rows of some columns in the types that JSON has, without nulls."""
    columns = [python_values(flat(raw[name])) for name in names]
    return [
        {name: plain(value) for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]
