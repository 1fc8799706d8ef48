"""The index: one Parquet row per committed clip, to list a million clips without opening their meta.json.

A cache: it may lag behind the clips, say a thing twice or be deleted; `wanray index` makes it anew.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.records import Clip, Request, canonical_json
from wanray.storage import Store

logger = logging.getLogger(__name__)

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


def index_row(
    key: str,
    ids: Iterable[str],
    request: Request,
    clip: Clip,
    tags: Mapping[str, Any],
    created_at: str | None = None,
) -> dict[str, Any]:
    """The row of a clip (`INDEX_SCHEMA`); `created_at` is now unless told."""
    return {
        "key": key,
        "ids": list(ids),
        "prompt": request.prompt,
        "width": request.width,
        "height": request.height,
        "num_frames": request.num_frames,
        "fps": request.fps,
        "seed": request.seed,
        "video": clip.path,
        "sha256": clip.sha256,
        "bytes": clip.bytes,
        "tags": canonical_json(tags),
        "created_at": created_at or datetime.now(UTC).isoformat(timespec="seconds"),
    }


def append_index(store: Store, name: str, rows: list[dict[str, Any]], part: int) -> None:
    """Write `rows` (`INDEX_SCHEMA`) as part number `part` of what the writer called `name` adds."""
    _write(store, f"{name}-{part:05d}.parquet", pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


def indexed_keys(store: Store) -> set[bytes]:
    """The 32-byte digests of all keys in the index."""
    digests: set[bytes] = set()
    for _, table in _parts(store, ["key"]):
        digests.update(map(bytes.fromhex, table["key"].to_pylist()))
    return digests


def indexed_bytes(store: Store) -> dict[bytes, int]:
    """Digest of a key -> size of its clip, of all keys in the index."""
    return {digest: size or 0 for digest, size in _indexed(store, "bytes").items()}


def indexed_times(store: Store) -> dict[bytes, str]:
    """Digest of a key -> when its clip was made (ISO 8601), of all keys in the index."""
    return _indexed(store, "created_at")


def _indexed(store: Store, column: str) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for _, table in _parts(store, ["key", column]):
        digests = map(bytes.fromhex, table["key"].to_pylist())
        found.update(zip(digests, table[column].to_pylist(), strict=True))
    return found


def newest_rows(store: Store, columns: list[str], num_parts: int) -> pa.Table:
    """These columns of the clips in the last parts by name, which begins with the run that added them."""
    empty = pa.schema([INDEX_SCHEMA.field(name) for name in columns]).empty_table()
    names = store.names("index")[-num_parts:]
    return pa.concat_tables([empty, *(table for _, table in _parts(store, columns, names))])


def drop_from_index(store: Store, keys: set[bytes]) -> None:
    """Take out the rows of these keys (32-byte digests); parts are replaced whole, so a kill does no harm."""
    for name, table in _parts(store) if keys else ():
        kept = table.filter(pa.array([bytes.fromhex(key) not in keys for key in table["key"].to_pylist()]))
        if not kept.num_rows:
            store.delete(f"index/{name}")
        elif kept.num_rows < table.num_rows:
            _write(store, name, kept)


def _parts(
    store: Store, columns: list[str] | None = None, names: list[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Names and rows of all parts, or of `names`; what `wanray index` replaces meanwhile is passed over."""
    for name in store.names("index") if names is None else names:
        try:
            yield name, pq.read_table(pa.BufferReader(store.read(f"index/{name}")), columns=columns)
        except FileNotFoundError:
            continue
        except pa.ArrowException as error:
            uri = store.uri(f"index/{name}")
            logger.warning("%s is left out: %s; `wanray index %s` makes it anew", uri, error, store.url)


def _write(store: Store, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.write(f"index/{name}", sink.getvalue().to_pybytes())
