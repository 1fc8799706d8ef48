"""Finding rows."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

import pyarrow as pa
import pyarrow.compute as pc


def rows_where(mask: pa.Array) -> list[int]:
    """Indices at which `mask` is true."""
    return pc.indices_nonzero(mask.fill_null(False)).to_pylist()
