"""The index: one Parquet row per committed clip, to list a million clips without opening their meta.json.

A cache: it may lag behind the clips or be deleted; it never decides that a clip exists.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.storage import Store

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("ids", pa.list_(pa.string())),
        ("prompt", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("num_frames", pa.int64()),
        ("fps", pa.float64()),
        ("seed", pa.int64()),
        ("video", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("tags", pa.string()),
        ("created_at", pa.string()),
    ]
)
"""`video` is a path relative to the store, `bytes` its size, `tags` JSON, `created_at` ISO 8601."""


def append_index(store: Store, name: str, rows: list[dict[str, Any]], part: int) -> None:
    """Write `rows` (`INDEX_SCHEMA`) as part number `part` of what the writer called `name` adds."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), sink, compression="zstd")
    store.write(f"index/{name}-{part:05d}.parquet", sink.getvalue().to_pybytes())


def indexed_keys(store: Store) -> set[bytes]:
    """The 32-byte digests of all keys in the index."""
    digests: set[bytes] = set()
    for name in store.names("index"):
        table = pq.read_table(pa.BufferReader(store.read(f"index/{name}")), columns=["key"])
        digests.update(map(bytes.fromhex, table["key"].to_pylist()))
    return digests
