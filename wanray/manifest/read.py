"""Reads manifests of any size in batches, as they are: nothing is converted, filled in or judged here.

Batches may differ in their columns; what belongs together has the same name.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
from pyarrow import csv, parquet

from wanray.config import RenderConfig
from wanray.errors import ManifestError
from wanray.manifest.arrays import PROBLEM, table_of

BATCH_BYTES = 64 * 2**20
"""Uncompressed size that a Parquet batch aims to stay under, for rows that carry images."""
BUFFER_BYTES = 2**20
"""Read ahead per Parquet column, instead of the whole column of a row group."""
CSV_BLOCK_BYTES = 8 * 2**20
"""Read at once; a row must fit."""


def read_batches(url: str, batch_rows: int = 16384) -> Iterator[pa.Table]:
    """The rows of a manifest in order, at most `batch_rows` at a time.

    url: a Parquet, JSONL or CSV file, a folder or glob of files of one format (taken in order of their
    names), local or of any fsspec store.

    Raises:
        ManifestError: nothing to read there, or not what its name says.
    """
    filesystem, paths = _find(url)
    read = READERS[_extension(paths[0])]
    num_rows = 0
    for path in paths:
        with reading(path), filesystem.open(path, "rb") as file:
            for table in read(file, path, batch_rows):
                num_rows += len(table)
                yield _checked(table, path)
    if num_rows == 0:
        raise ManifestError(f"manifest {url} is empty: it needs at least one row")


def read_rows(config: RenderConfig) -> Iterator[pa.Table]:
    """The rows that a job renders: those of its manifest, or its prompts where it names none."""
    if config.manifest is None:
        return iter([table_of([{"prompt": prompt} for prompt in config.prompts])])
    return read_batches(config.manifest)


def _find(url: str) -> tuple[Any, list[str]]:
    """The store and its files, sorted by name."""
    with reading(url):
        filesystem, path = fsspec.core.url_to_fs(url)
        paths = _files(filesystem, path)
        is_empty_folder = not paths and filesystem.isdir(path)
    if is_empty_folder:
        raise ManifestError(f"manifest {url} is an empty folder: put {', '.join(READERS)} files there")
    if not paths:
        raise ManifestError(f"manifest {url} does not exist: give a file, a folder or a glob (*.parquet)")
    extensions = {_extension(path) for path in paths}
    if len(extensions) > 1:
        raise ManifestError(
            f"manifest {url} mixes {', '.join(sorted(extensions))} files: use a glob to pick one"
        )
    if not extensions <= set(READERS):
        raise ManifestError(
            f"manifest {paths[0]} is none of {', '.join(READERS)}: "
            "`wanray manifest` converts a .txt of prompts, save anything else as one of these"
        )
    return filesystem, paths


def _files(filesystem: Any, path: str) -> list[str]:
    if any(sign in path for sign in "*?["):
        return sorted(name for name in filesystem.glob(path) if _is_data(name))
    if filesystem.isdir(path):
        return sorted(name for name in filesystem.find(path) if _is_data(name))
    return [path] if filesystem.exists(path) else []


def _is_data(path: str) -> bool:
    """False for what tools leave beside the data, such as _SUCCESS and .crc files."""
    return not PurePosixPath(path).name.startswith((".", "_"))


def _extension(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _checked(table: pa.Table, path: str) -> pa.Table:
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise ManifestError(
            f"manifest {path} has more than one column {', '.join(repeated)}: keep one of each"
        )
    return table


def _read_parquet(file: IO[bytes], path: str, batch_rows: int) -> Iterator[pa.Table]:
    source = parquet.ParquetFile(file, buffer_size=BUFFER_BYTES)
    metadata = source.metadata
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    rows = max(1, min(batch_rows, BATCH_BYTES * metadata.num_rows // max(num_bytes, 1)))
    for batch in source.iter_batches(batch_size=rows):
        yield pa.Table.from_batches([batch])


def _read_csv(file: IO[bytes], path: str, batch_rows: int) -> Iterator[pa.Table]:
    torn: list[str] = []

    def skip(row: csv.InvalidRow) -> str:
        counts = f"{row.actual_columns} values for {row.expected_columns} columns"
        torn.append(
            f"row {row.number} of {path} has {counts}: quote what holds a comma, got {row.text[:80]!r}"
        )
        return "skip"

    convert = csv.ConvertOptions(default_column_type=pa.string(), null_values=[""], strings_can_be_null=True)
    blocks = csv.open_csv(
        file,
        read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=convert,
    )
    for block in blocks:
        for start in range(0, len(block), batch_rows):
            yield pa.Table.from_batches([block.slice(start, batch_rows)])
    for start in range(
        0, len(torn), batch_rows
    ):  # last: Arrow reads ahead, and row numbers must not depend on it
        yield pa.table({PROBLEM: torn[start : start + batch_rows]})


def _read_jsonl(file: IO[bytes], path: str, batch_rows: int) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file, start=1):
        if line.strip():
            rows.append(_parse_line(line, f"line {number} of {path}"))
        if len(rows) == batch_rows:
            yield table_of(rows)
            rows = []
    if rows:
        yield table_of(rows)


def _parse_line(line: bytes, place: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text, parse_constant=_reject_constant)
        if "\\u" in text:  # half of a surrogate pair can be escaped in JSON, but not stored
            json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return {PROBLEM: f"{place} is not JSON: {error}"}
    return row if isinstance(row, dict) else {PROBLEM: f"{place} is not a JSON object: {line[:80]!r}"}


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


READERS: dict[str, Callable[[IO[bytes], str, int], Iterator[pa.Table]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
}


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns whatever a store or a parser raises into one ManifestError that names the file."""
    try:
        yield
    except ManifestError:
        raise
    except FileNotFoundError as error:
        raise ManifestError(f"manifest {path} does not exist: check the path") from error
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if "Empty CSV file" in str(error):
            raise ManifestError(f"manifest {path} is empty: it needs at least one row") from error
        remedy = f"is it really a {_extension(path)} file, whole and in UTF-8?"
        raise ManifestError(f"manifest {path} cannot be read: {error}; {remedy}") from error
    except Exception as error:
        remedy = "check the address, your rights and the network"
        raise ManifestError(f"manifest {path} cannot be read: {error}; {remedy}") from error
