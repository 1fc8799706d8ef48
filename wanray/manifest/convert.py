"""Turns prompts, JSONL, CSV or Parquet into a checked Parquet manifest of canonical column types."""

import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import fsspec
import pyarrow as pa
from pyarrow import parquet

from wanray.errors import ManifestError, StorageError, WanrayError
from wanray.manifest.arrays import JSON, flat, json_array, python_values
from wanray.manifest.columns import normalise_table, unknown_columns
from wanray.manifest.problems import Problem, located
from wanray.manifest.read import read_batches, reading
from wanray.manifest.validate import validate

BATCH_ROWS = 16384
SHOWN_PROBLEMS = 20


def convert(source: str, target: str) -> int:
    """Write `source` as the Parquet manifest `target` and return its number of rows.

    source: a manifest as `read_batches` takes it, or a .txt file with one prompt per line.
    Only rules that hold for every model are checked. Unknown columns are kept as they are. Media are not
    opened.

    Raises:
        ManifestError: `source` cannot be read, or breaks a rule; nothing is written.
        StorageError: `target` cannot be written.
    """
    if PurePosixPath(target).suffix.lower() != ".parquet":
        raise ManifestError(f"manifest {target} would be Parquet: let its name end with .parquet")
    schema, num_rows = _survey(source)
    _write(source, target, schema)
    return num_rows


def _read(source: str) -> Iterator[pa.Table]:
    is_text = PurePosixPath(source).suffix.lower() == ".txt"
    return _read_prompts(source) if is_text else read_batches(source, BATCH_ROWS)


def _read_prompts(source: str) -> Iterator[pa.Table]:
    with reading(source), fsspec.open(source, "rt", encoding="utf-8-sig") as file:
        prompts = (line.strip() for line in file if line.strip())
        batches = iter(lambda: list(itertools.islice(prompts, BATCH_ROWS)), [])
        first = next(batches, None)
        if first is None:
            raise ManifestError(f"manifest {source} is empty: it needs at least one prompt")
        for batch in itertools.chain([first], batches):
            yield pa.table({"prompt": batch})


def _survey(source: str) -> tuple[pa.Schema, int]:
    """The columns of all batches together and the number of rows; raises if any row has a problem."""
    types: dict[str, pa.DataType] = {}
    shown: list[Problem] = []
    num_rows = num_problems = 0
    for raw in _read(source):
        table, problems = _converted(raw)
        problems += validate(table, None)
        ids = table["id"].to_pylist() if "id" in raw.column_names else [None] * len(raw)
        num_problems += len(problems)
        shown += located(problems, num_rows, [id_ or "" for id_ in ids])[: SHOWN_PROBLEMS - len(shown)]
        num_rows += len(raw)
        for field in table.schema:
            types[field.name] = _common(types.get(field.name, field.type), field.type)
    if num_problems:
        listed = "\n".join(f"  {problem}" for problem in shown)
        raise ManifestError(
            f"manifest {source} has {num_problems} problems, nothing was written; first:\n{listed}"
        )
    return pa.schema(types.items()), num_rows


def _converted(raw: pa.Table) -> tuple[pa.Table, list[Problem]]:
    """Known columns in canonical types, the others as they came."""
    table, problems = normalise_table(raw)
    known = {name: table[name] for name in table.column_names if name in raw.column_names}
    return pa.table(known | {name: raw[name] for name in unknown_columns(raw)}), problems


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that both can have; batches that do not agree on one meet as JSON."""
    if one == other or pa.types.is_null(other):
        return one
    return other if pa.types.is_null(one) else JSON


def _write(source: str, target: str, schema: pa.Schema) -> None:
    """Under another name first, so that the target appears whole."""
    with _writing(target):
        filesystem, path = fsspec.core.url_to_fs(target)
        if filesystem.isdir(path):
            raise ManifestError(f"manifest {target} is a folder: name the file to write")
        partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
        filesystem.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        with filesystem.open(partial, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
            for raw in _read(source):
                table, _ = _converted(raw)
                columns = [_cast(table, field) for field in schema]
                writer.write_table(pa.table(columns, schema=schema))
        filesystem.mv(partial, path)


@contextmanager
def _writing(target: str) -> Iterator[None]:
    try:
        yield
    except WanrayError:
        raise
    except (ValueError, ImportError) as error:
        raise ManifestError(f"manifest {target} cannot be written: {error}; check the address") from None
    except OSError as error:
        raise StorageError(
            f"manifest {target} cannot be written: {error}; check the address and your rights"
        ) from None


def _cast(table: pa.Table, field: pa.Field) -> pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    array = flat(table[field.name])
    if array.type == field.type:
        return array
    return json_array(python_values(array)) if field.type == JSON else pa.nulls(len(table), field.type)
