"""The columns that a manifest may have, and how any incoming Arrow column becomes one of them.

Types only: ranges and rules between columns are in `validate`. What Arrow can cast goes through Arrow;
the rest goes value by value through `values`, once per distinct text.
"""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest import values
from wanray.manifest.arrays import PROBLEM, distinct_values, flat, is_text
from wanray.manifest.problems import Problem, broken

GUIDANCE = pa.struct([("high", pa.float64()), ("low", pa.float64())])
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LORA = pa.struct([("path", pa.string()), ("weight", pa.float64()), ("expert", pa.string())])


@dataclass(frozen=True, slots=True)
class Kind:
    """Canonical type of some columns and the two ways to get there.

    cast: for whole arrays; None, or ArrowInvalid raised, where each value needs a look.
    convert: for one value.
    """

    type: pa.DataType
    convert: Callable[[Any], Any]
    cast: Callable[[pa.Array], pa.Array | None] = lambda array: None


def _cast_text(array: pa.Array) -> pa.Array | None:
    # Arrow checks UTF-8 only on the way from binary.
    return array.cast(pa.binary()).cast(pa.string()) if is_text(array.type) else None


def _cast_identifier(array: pa.Array) -> pa.Array | None:
    return array.cast(pa.string()) if pa.types.is_integer(array.type) else _cast_text(array)


def _cast_integer(array: pa.Array) -> pa.Array | None:
    return array.cast(pa.int64()) if _is_number(array.type) else None


def _cast_real(array: pa.Array) -> pa.Array | None:
    if not _is_number(array.type):
        return None
    reals = array.cast(pa.float64())
    return reals if pc.all(pc.is_finite(reals), min_count=0).as_py() else None


def _cast_guidance(array: pa.Array) -> pa.Array | None:
    reals = _cast_real(array)
    if reals is None:
        return None
    return pa.StructArray.from_arrays([reals, reals], fields=list(GUIDANCE), mask=reals.is_null())


def _cast_integers(array: pa.Array) -> pa.Array | None:
    if not pa.types.is_list(array.type) or not pa.types.is_integer(array.type.value_type):
        return None
    return None if pc.list_flatten(array).null_count else array.cast(pa.list_(pa.int64()))


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


_TEXT = Kind(pa.string(), values.text, _cast_text)
_INTEGER = Kind(pa.int64(), values.integer, _cast_integer)
_REAL = Kind(pa.float64(), values.real, _cast_real)
_MEDIA = Kind(MEDIA, values.media)

COLUMNS: dict[str, Kind] = {
    "id": Kind(pa.string(), values.identifier, _cast_identifier),
    "prompt": _TEXT,
    "negative_prompt": _TEXT,
    "image": _MEDIA,
    "last_image": _MEDIA,
    "video": _MEDIA,
    "mask": _MEDIA,
    "video_sampling": _TEXT,
    "key_images": Kind(pa.list_(MEDIA), values.medias),
    "key_frames": Kind(pa.list_(pa.int64()), values.integers, _cast_integers),
    "reference_images": Kind(pa.list_(MEDIA), values.medias),
    "audio": _MEDIA,
    "pose_video": _MEDIA,
    "task": _TEXT,
    "size": _TEXT,
    "width": _INTEGER,
    "height": _INTEGER,
    "max_area": _INTEGER,
    "context_scale": _REAL,
    "num_frames": _INTEGER,
    "fps": _REAL,
    "seed": _INTEGER,
    "seeds": Kind(pa.list_(pa.int64()), values.integers, _cast_integers),
    "steps": _INTEGER,
    "shift": _REAL,
    "guidance": Kind(GUIDANCE, values.guidance, _cast_guidance),
    "solver": _TEXT,
    "lora": Kind(pa.list_(LORA), values.loras),
    "priority": _INTEGER,
    "tags": Kind(pa.string(), values.tags),
}
"""Every known column; all others are carried as tags."""

MEDIA_COLUMNS = tuple(name for name, kind in COLUMNS.items() if kind.type in (MEDIA, pa.list_(MEDIA)))
"""Columns that name files (or hold their bytes)."""


def normalise(name: str, array: pa.Array) -> tuple[pa.Array, list[Problem]]:
    """`array` in the canonical type of column `name`, and a problem for each value that became null."""
    kind = COLUMNS[name]
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind.type), []
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        cast = kind.cast(array)
    except pa.ArrowInvalid:
        cast = None
    return _convert_each(name, kind, array) if cast is None else (cast, [])


def normalise_table(raw: pa.Table) -> tuple[pa.Table, list[Problem]]:
    """The known columns of one batch in canonical types, and every value that could not be brought there."""
    columns: dict[str, pa.Array] = {}
    problems: list[Problem] = []
    for name in raw.column_names:
        if name in COLUMNS:
            columns[name], found = normalise(name, flat(raw[name]))
            problems += found
    if not columns:
        columns["id"] = pa.nulls(len(raw), pa.string())
    return pa.table(columns), problems + row_problems(raw)


def row_problems(raw: pa.Table) -> list[Problem]:
    """What the reader found wrong with whole rows."""
    if PROBLEM not in raw.column_names:
        return []
    messages = raw[PROBLEM].to_pylist()
    return [Problem(row, "", "", message) for row, message in enumerate(messages) if message is not None]


def unknown_columns(raw: pa.Table) -> list[str]:
    """Names of the columns that are not the manifest's own."""
    return [name for name in raw.column_names if name not in COLUMNS and name != PROBLEM]


def _convert_each(name: str, kind: Kind, array: pa.Array) -> tuple[pa.Array, list[Problem]]:
    distinct, indices = distinct_values(array)
    converted: list[Any] = []
    bad: dict[int, str] = {}
    for index, value in enumerate(distinct):
        try:
            converted.append(None if value is None else kind.convert(value))
        except ValueError as error:
            converted.append(None)
            bad[index] = str(error)
    positions = enumerate(indices.to_pylist()) if bad else ()
    problems = [broken(row, name, bad[i], distinct[i]) for row, i in positions if i in bad]
    return pa.array(converted, kind.type).take(indices), problems
