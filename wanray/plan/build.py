"""Which requests are left, in which order, written as plan files.

Two passes over a spool on local disk, so that memory stays a few dozen bytes per request: the first
collects keys and ids, the second drops what is committed or repeated and writes the rest, highest priority
first, requests of one shape together.
"""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wanray.errors import ConfigError
from wanray.manifest import INVALID_SCHEMA, Problem, Resolved
from wanray.plan.model import Counts
from wanray.plan.problems import Problems
from wanray.records import PLAN_SCHEMA, content_key

PART_ROWS = 4096
BUFFERED_ROWS = 64 * PART_ROWS
SHAPE = ("width", "height", "num_frames", "steps")
COST = (*SHAPE, "shift", "solver", "guided")
KEY_START = re.compile("[0-9a-f]{8,64}")
WritePart = Callable[[str, bytes], None]


@dataclass(slots=True)
class Selection:
    """What the manifest comes to."""

    counts: Counts
    costs: dict[tuple[Any, ...], int]
    """(`COST` values) -> number of requests left."""
    parts: list[str]
    problems: Problems
    invalid: pa.Table
    """`INVALID_SCHEMA`: the rows that become failures."""
    text_bytes: np.ndarray
    """Of each prompt to encode; what requests share is counted once."""


@dataclass(slots=True)
class _Spool:
    """Resolved requests on disk, and what the selection needs of them in memory."""

    path: Path
    writer: pq.ParquetWriter | None = None
    digests: list[np.ndarray] = field(default_factory=list)
    ids: list[pa.Array] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    encoded: list[np.ndarray] = field(default_factory=list)
    text_bytes: list[np.ndarray] = field(default_factory=list)

    def add(self, requests: pa.Table) -> None:
        if requests.num_rows == 0:
            return
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, requests.schema, compression="lz4")
        self.writer.write_table(requests, row_group_size=requests.num_rows)
        self.digests.append(_bytes(requests["digest"], "S32"))
        self.encoded.append(_bytes(requests["encoded"], "u8"))
        self.text_bytes.append(requests["text_bytes"].to_numpy())
        self.ids.extend(pc.list_flatten(chunk) for chunk in requests["ids"].chunks)
        self.rows.append(requests["row"].to_numpy())

    def tables(self) -> Iterator[pa.Table]:
        if self.writer is None:
            return
        self.writer.close()
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)


def _bytes(column: pa.ChunkedArray, dtype: str) -> np.ndarray:
    """A column of binaries of one length as numpy sees them."""
    array = pa.concat_arrays(column.chunks)
    return np.frombuffer(array.buffers()[1], dtype)[array.offset :][: len(array)].copy()


def _text_bytes(spool: _Spool, keep: np.ndarray) -> np.ndarray:
    """The lengths of the prompts of what is kept, each once."""
    if not spool.encoded:
        return np.empty(0, np.int32)
    _, first = np.unique(np.concatenate(spool.encoded)[keep], return_index=True)
    return np.concatenate(spool.text_bytes)[keep][first]


def select_requests(
    resolved: Iterator[Resolved],
    committed: set[bytes],
    write_part: WritePart,
    failed: Set[bytes] = frozenset(),
    only: Collection[str] = (),
) -> Selection:
    """Drop what is committed or repeated and hand the rest to `write_part(name, parquet_bytes)`.

    An id that names two different requests makes the later row invalid.

    Args:
        failed: digests of requests that failed for good, and are dropped too.
        only: ids and keys (or their first characters); all else is dropped, invalid rows too.

    Raises:
        ConfigError: something in `only` names nothing.
    """
    num_rows, invalid, problems = 0, [], Problems()
    with TemporaryDirectory(prefix="wanray-plan-") as folder:
        spool = _Spool(Path(folder) / "spool.parquet")
        for batch in resolved:
            spool.add(batch.requests)
            num_rows += batch.num_rows
            problems.add(batch.problems)
            invalid.append(batch.invalid)
        digests = np.concatenate(spool.digests) if spool.digests else np.empty(0, "S32")
        ids = pa.chunked_array(spool.ids, pa.string())
        rows = np.concatenate(spool.rows) if spool.rows else np.empty(0, np.int64)
        ambiguous, clashes = _clashing_ids(ids, digests, rows)
        invalid.append(_invalid_table(clashes, ids, digests))
        problems.add(problem for _, problem in clashes)
        fresh, merged_ids = _first_of_each(digests, ids, ~ambiguous)
        chosen = _chosen(only, digests, ids) if only else np.ones(len(digests), bool)
        done = np.fromiter((_padded(digest) in committed for digest in digests), bool, len(digests))
        gone = np.fromiter((_padded(digest) in failed for digest in digests), bool, len(digests)) & ~done
        keep = fresh & chosen & ~done & ~gone
        costs: Counter[tuple[Any, ...]] = Counter()
        parts = list(_write_parts(spool, keep, merged_ids, costs, write_part))
    bad_rows = pa.concat_tables(invalid) if invalid else INVALID_SCHEMA.empty_table()
    if only:
        bad_rows = bad_rows.filter(pc.is_in(bad_rows["id"], pa.array(only)))
        _check_found(only, digests[chosen], ids.filter(pa.array(chosen)), bad_rows)
    counts = Counts(
        rows=num_rows,
        invalid=bad_rows.num_rows,
        requests=len(digests) - int(ambiguous.sum()),
        merged=int((~fresh & ~ambiguous).sum()),
        committed=int((fresh & chosen & done).sum()),
        failed_before=int((fresh & chosen & gone).sum()),
        not_chosen=int((fresh & ~chosen).sum()),
        left=int(keep.sum()),
    )
    return Selection(counts, dict(costs), parts, problems, bad_rows, _text_bytes(spool, keep))


def _chosen(only: Collection[str], digests: np.ndarray, ids: pa.ChunkedArray) -> np.ndarray:
    """Mask of requests that `only` names, by id or by the first characters of their key."""
    starts = tuple(name for name in only if KEY_START.fullmatch(name))
    by_id = pc.is_in(ids, pa.array(only)).to_numpy(zero_copy_only=False)
    by_key = (bool(starts) and _padded(digest).hex().startswith(starts) for digest in digests)
    mask = by_id | np.fromiter(by_key, bool, len(digests))
    return np.isin(digests, digests[mask])  # a repeated request has several ids


def _check_found(only: Collection[str], digests: np.ndarray, ids: pa.ChunkedArray, invalid: pa.Table) -> None:
    names = {*ids.to_pylist(), *invalid["id"].to_pylist()}
    keys = [_padded(digest).hex() for digest in digests]
    for name in only:
        is_key = KEY_START.fullmatch(name) and any(key.startswith(name) for key in keys)
        if name not in names and not is_key:
            raise ConfigError(f"--only {name} is neither an id of the manifest nor the start of a key")


def _padded(digest: Any) -> bytes:
    """The 32 bytes of a numpy `S32` value, which comes without the zero bytes at its end."""
    return bytes(digest).ljust(32, b"\0")


def _clashing_ids(
    ids: pa.ChunkedArray, digests: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, list[tuple[int, Problem]]]:
    """Mask of requests whose id already stands for another request, and the problem of each."""
    mask, problems = np.zeros(len(digests), bool), []
    counts = pc.value_counts(ids)
    repeated = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    owner: dict[str, int] = {}
    for index in np.flatnonzero(pc.is_in(ids, repeated).to_numpy(zero_copy_only=False)):
        first = owner.setdefault(identifier := ids[int(index)].as_py(), int(index))
        if digests[first] != digests[index]:
            mask[index] = True
            rule = f"is already used by row {rows[first]} with other parameters: give it an id of its own"
            problems.append((int(index), Problem(int(rows[index]), identifier, "id", rule)))
    return mask, problems


def _invalid_table(clashes: list[tuple[int, Problem]], ids: pa.ChunkedArray, digests: np.ndarray) -> pa.Table:
    rows = [
        {
            "row": problem.row,
            "id": problem.id,
            "key": content_key(f'"{problem.id}"', {"clash": _padded(digests[index]).hex()}, {}),
            "message": str(problem),
        }
        for index, problem in clashes
    ]
    return pa.Table.from_pylist(rows, schema=INVALID_SCHEMA)


def _first_of_each(
    digests: np.ndarray, ids: pa.ChunkedArray, usable: np.ndarray
) -> tuple[np.ndarray, dict[bytes, list[str]]]:
    """Mask of the first request of each key, and all ids of the keys that occur more than once."""
    positions = np.flatnonzero(usable)
    _, first, inverse, counts = np.unique(
        digests[positions], return_index=True, return_inverse=True, return_counts=True
    )
    mask = np.zeros(len(digests), bool)
    mask[positions[first]] = True
    merged: dict[bytes, list[str]] = {}
    for position in positions[counts[inverse] > 1]:
        known = merged.setdefault(_padded(digests[position]), [])
        if (identifier := ids[int(position)].as_py()) not in known:
            known.append(identifier)
    return mask, merged


def _write_parts(
    spool: _Spool, keep: np.ndarray, merged_ids: dict[bytes, list[str]], costs: Counter, write_part: WritePart
) -> Iterator[str]:
    """Write the kept requests; file names sort in the order of work. Yields the names."""
    buffers: dict[tuple[int, ...], list[pa.Table]] = {}
    order: dict[tuple[int, ...], int] = {}
    written: Counter[tuple[int, ...]] = Counter()

    def flush(bucket: tuple[int, ...]) -> str:
        name = f"part-{10**6 - bucket[0]:07d}-{order[bucket[1:]]:05d}-{written[bucket]:06d}.parquet"
        written[bucket] += 1
        sink = io.BytesIO()
        pq.write_table(pa.concat_tables(buffers.pop(bucket)), sink, compression="zstd")
        write_part(name, sink.getvalue())
        return name

    offset = buffered = 0
    for table in spool.tables():
        kept = table.filter(pa.array(keep[offset : offset + table.num_rows]))
        offset += table.num_rows
        for values in kept.group_by(COST).aggregate([([], "count_all")]).to_pylist():
            costs[tuple(values[name] for name in COST)] += values["count_all"]
        for bucket, rows in _buckets(_with_all_ids(kept, merged_ids)):
            order.setdefault(bucket[1:], len(order))
            for start in range(0, rows.num_rows, PART_ROWS):
                piece = rows.slice(start, PART_ROWS)
                held = buffers.setdefault(bucket, [])
                if sum(part.num_rows for part in held) + piece.num_rows > PART_ROWS:
                    buffered -= sum(part.num_rows for part in held)
                    yield flush(bucket)
                buffers.setdefault(bucket, []).append(piece)
                buffered += piece.num_rows
        if buffered > BUFFERED_ROWS:
            yield from [flush(bucket) for bucket in list(buffers)]
            buffered = 0
    yield from [flush(bucket) for bucket in list(buffers)]


def _with_all_ids(table: pa.Table, merged_ids: dict[bytes, list[str]]) -> pa.Table:
    if merged_ids:
        all_ids = [
            merged_ids.get(digest, ids)
            for digest, ids in zip(table["digest"].to_pylist(), table["ids"].to_pylist(), strict=True)
        ]
        column = pa.array(all_ids, PLAN_SCHEMA.field("ids").type)
        table = table.set_column(table.schema.get_field_index("ids"), PLAN_SCHEMA.field("ids"), column)
    return table.select(PLAN_SCHEMA.names)


def _buckets(table: pa.Table) -> Iterator[tuple[tuple[int, ...], pa.Table]]:
    """The rows of each (priority, shape), in the order of their first row."""
    names = ("priority", *SHAPE)
    columns = (
        np.stack([table[name].to_numpy() for name in names], axis=1)
        if table.num_rows
        else np.empty((0, 5), int)
    )
    buckets, first, inverse = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    for number in np.argsort(first):
        yield (
            tuple(int(value) for value in buckets[number]),
            table.filter(pa.array(inverse.ravel() == number)),
        )
