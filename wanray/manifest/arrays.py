"""Between Arrow arrays and Python values, where a column may hold values of no one Arrow type."""

import json
from typing import Any

import pyarrow as pa

from wanray.manifest.values import plain

PROBLEM = "__problem__"
"""Reserved column of a reader: what is wrong with a row as a whole."""

JSON = pa.json_(pa.string())
"""Type of a column whose values have no one Arrow type: each is JSON text."""


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table with the columns of all of them."""
    # a table without columns has no rows, and empty rows have to be counted
    names = dict.fromkeys(name for row in rows for name in row) or {"prompt": None}
    return pa.table({name: array_of([row.get(name) for row in rows]) for name in names})


def array_of(values: list[Any]) -> pa.Array:
    """Values as an array of their own type, or as JSON text where they share none that Arrow knows."""
    types = {type(value) for value in values if value is not None}
    if len(types) <= 1 and not types & {list, dict}:
        try:
            return pa.array(values)
        except OverflowError:
            pass
    return json_array(values)


def json_array(values: list[Any]) -> pa.Array:
    """Values as JSON text."""
    return pa.array([None if value is None else json.dumps(plain(value)) for value in values], JSON)


def flat(column: pa.ChunkedArray) -> pa.Array:
    """A table's column as one array."""
    return column.combine_chunks()


def python_values(array: pa.Array) -> list[Any]:
    """The values as Python objects: JSON parsed, text that is not UTF-8 as bytes."""
    if array.type == JSON:
        return [None if value is None else json.loads(value) for value in python_values(array.storage)]
    if is_text(array.type):
        return [_decoded(value) for value in array.cast(pa.binary()).to_pylist()]
    return array.to_pylist()


def distinct_values(array: pa.Array) -> tuple[list[Any], pa.Array]:
    """Python values and, for every row, which of them it has; only text is worth looking for repeats."""
    storage = array.storage if array.type == JSON else array
    if not is_text(storage.type):
        return python_values(array), pa.array(range(len(array)), pa.int64())
    encoded = storage.cast(pa.binary()).dictionary_encode()
    texts = [_decoded(value) for value in encoded.dictionary.to_pylist()]
    return [json.loads(text) for text in texts] if array.type == JSON else texts, encoded.indices


def is_text(type_: pa.DataType) -> bool:
    """Whether an Arrow type is one of its string types."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _decoded(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value
