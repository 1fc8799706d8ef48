"""Any incoming type to the canonical one; what cannot be converted is named."""

from decimal import Decimal

import pyarrow as pa
import pytest

from wanray.manifest.arrays import json_array
from wanray.manifest.columns import COLUMNS, normalise, normalise_table, unknown_columns

MEDIUM = {"bytes": None, "path": "a.png"}
BOTH = {"high": 5.0, "low": 5.0}

GOOD = [
    ("id", pa.array([7, None]), ["7", None]),
    ("id", json_array([7, "a"]), ["7", "a"]),
    ("prompt", pa.array(["a", None]), ["a", None]),
    ("prompt", pa.array(["a"], pa.large_string()), ["a"]),
    ("prompt", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    ("negative_prompt", pa.array([""]), [""]),
    ("steps", pa.array([None, None]), [None, None]),
    ("steps", pa.array([20, None], pa.int8()), [20, None]),
    ("steps", pa.array(["20", " 20 ", "20.0", None]), [20, 20, 20, None]),
    ("steps", pa.array([20.0, None]), [20, None]),
    ("steps", pa.array([Decimal("20")]), [20]),
    ("steps", json_array(["20", 20, 20.0]), [20, 20, 20]),
    ("seed", pa.array([str(2**63 - 1)]), [2**63 - 1]),
    ("seed", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
    ("fps", pa.array([16]), [16.0]),
    ("fps", pa.array([23.976], pa.float64()), [23.976]),
    ("fps", pa.array(["16", "1e1"]), [16.0, 10.0]),
    ("guidance", pa.array([5, None]), [BOTH, None]),
    ("guidance", pa.array(["5", '{"high": 4, "low": 3.5}']), [BOTH, {"high": 4.0, "low": 3.5}]),
    ("guidance", pa.array([{"high": 4, "low": 3}, None]), [{"high": 4.0, "low": 3.0}, None]),
    ("guidance", json_array([5, {"high": 4, "low": 3}]), [BOTH, {"high": 4.0, "low": 3.0}]),
    ("seeds", pa.array([[1, 2], [], None], pa.list_(pa.int32())), [[1, 2], [], None]),
    ("seeds", pa.array(["[1, 2]"]), [[1, 2]]),
    ("seeds", json_array([[1, "2"]]), [[1, 2]]),
    ("image", pa.array(["a.png", None]), [MEDIUM, None]),
    ("image", pa.array([MEDIUM], COLUMNS["image"].type), [MEDIUM]),
    ("image", pa.array([{"bytes": b"x", "path": None}]), [{"bytes": b"x", "path": None}]),
    ("reference_images", pa.array([["a.png"], None]), [[MEDIUM], None]),
    ("reference_images", pa.array(['["a.png"]']), [[MEDIUM]]),
    ("lora", pa.array([[{"path": "x"}]]), [[{"path": "x", "weight": 1.0, "expert": None}]]),
    (
        "lora",
        json_array([[{"path": "x", "weight": 2, "expert": "high"}]]),
        [[{"path": "x", "weight": 2.0, "expert": "high"}]],
    ),
    ("tags", pa.array([{"b": 1, "a": "x"}]), ['{"a":"x","b":1}']),
    ("tags", pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), ['{"k":1}']),
    ("tags", pa.array([' {"b": [1]} ', None]), ['{"b":[1]}', None]),
]


@pytest.mark.parametrize(("name", "array", "expected"), GOOD)
def test_converts(name, array, expected):
    converted, problems = normalise(name, array)
    assert problems == []
    assert converted.type == COLUMNS[name].type
    assert converted.to_pylist() == expected


@pytest.mark.parametrize(("name", "array", "expected"), GOOD)
def test_canonical_arrays_stay(name, array, expected):
    converted, _ = normalise(name, array)
    again, problems = normalise(name, converted)
    assert (again.to_pylist(), problems) == (expected, [])


BAD = [
    ("prompt", pa.array([5]), "must be UTF-8 text, got 5"),
    ("prompt", json_array(["a", 5])[1:], "must be UTF-8 text, got 5"),
    ("prompt", pa.array([b"\xff"]).view(pa.string()), "must be UTF-8 text, got b'\\xff'"),
    ("id", pa.array([1.5]), "must be UTF-8 text, got 1.5"),
    ("steps", pa.array([20.5]), "must be a whole number, got 20.5"),
    ("steps", pa.array([float("nan")]), "must be a whole number, got nan"),
    ("steps", pa.array(["many"]), "must be a whole number, got 'many'"),
    ("steps", pa.array([True]), "must be a whole number, got True"),
    ("seed", pa.array([2**63], pa.uint64()), f"must be at most {2**63 - 1} either side of 0, got {2**63}"),
    ("fps", pa.array([float("inf")]), "must be a finite number, got inf"),
    ("fps", pa.array(["nan"]), "must be a finite number, got 'nan'"),
    ("guidance", pa.array(["high"]), "must be a number or {high, low} with two numbers, got 'high'"),
    (
        "guidance",
        json_array([{"high": 1}]),
        "must be a number or {high, low} with two numbers, got {'high': 1}",
    ),
    ("guidance", pa.array(["{"]), "must be a number or {high, low} with two numbers, got '{'"),
    ("guidance", pa.array([{"high": 1.0, "low": None}]), "with two numbers, got {'high': 1.0, 'low': None}"),
    ("seeds", pa.array([[1, None]]), "must be a whole number, got [1, None]"),
    ("seeds", pa.array(["1"]), "must be a list of whole numbers such as [0, 1], got '1'"),
    ("seeds", pa.array(["[1"]), "must be a list of whole numbers such as [0, 1], got '[1'"),
    ("image", pa.array([5]), "must be a URI or {bytes, path} with one of the two, got 5"),
    ("image", pa.array([""]), "must be a URI or {bytes, path} with one of the two, got ''"),
    ("reference_images", pa.array(["a.png"]), "must be a list of URIs or of {bytes, path}, got 'a.png'"),
    ("lora", pa.array([[{"weight": 1.0}]]), "must be a list of {path, weight, expert}"),
    ("lora", json_array([[{"path": "x", "expert": "both"}]]), "with expert high, low or left out"),
    ("tags", pa.array(["[1]"]), "must be an object such as {'scene': 'beach'}, got '[1]'"),
    ("tags", pa.array(['{"a": "\\ud800"}']), "must be UTF-8 text"),
]


@pytest.mark.parametrize(("name", "array", "message"), BAD)
def test_names_what_it_cannot_convert(name, array, message):
    converted, problems = normalise(name, pa.concat_arrays([array, pa.nulls(1, array.type), array]))
    assert converted.to_pylist() == [None, None, None]
    assert [(problem.row, problem.column) for problem in problems] == [(0, name), (2, name)]
    assert all(message in problem.message for problem in problems)


def test_one_bad_value_spares_the_others():
    converted, problems = normalise("steps", pa.array(["20", "x", None, "30"]))
    assert converted.to_pylist() == [20, None, None, 30]
    assert [problem.row for problem in problems] == [1]


def test_unknown_columns_are_told_apart():
    raw = pa.table({"prompt": ["a"], "mood": ["calm"]})
    table, problems = normalise_table(raw)
    assert (table.column_names, problems, unknown_columns(raw)) == (["prompt"], [], ["mood"])
