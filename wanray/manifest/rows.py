"""Columns and rows of a normalised batch."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.manifest.columns import COLUMNS


def column(table: pa.Table, name: str) -> pa.Array:
    """A known column of normalised rows; nulls where the manifest has none."""
    return flat(table[name]) if name in table.column_names else pa.nulls(len(table), COLUMNS[name].type)


def rows_where(mask: pa.Array) -> list[int]:
    """Indices at which `mask` is true."""
    return pc.indices_nonzero(mask.fill_null(False)).to_pylist()
