"""The table of columns has them all; what it says by hand agrees with the code."""

import json
from dataclasses import fields

import pyarrow as pa
import pytest

from wanray.manifest.arrays import flat, json_array
from wanray.manifest.columns import COLUMNS, normalise
from wanray.manifest.reference import ENTRIES, OF_MODEL, manifest_reference
from wanray.manifest.validate import RULES, validate
from wanray.registry import Defaults


def test_every_column_is_there_in_order():
    assert list(ENTRIES) == list(COLUMNS)


@pytest.mark.parametrize("name", ENTRIES)
def test_examples_are_right(name):
    value = json.loads(ENTRIES[name].example)
    column, problems = normalise(name, flat(pa.chunked_array([json_array([value])])))
    assert not problems
    assert column.null_count == 0
    assert not validate(pa.table({name: column}), None)


def test_the_models_defaults_are_those_of_the_registry():
    official = {item.name for item in fields(Defaults)} - {"shift_by_area"} | {"size"}
    assert {name for name, entry in ENTRIES.items() if entry.default.startswith(OF_MODEL)} == official


def test_rules_are_told_as_messages_tell_them():
    rows = {line.split("`")[1]: line for line in manifest_reference().splitlines()[2:]}
    for rule in RULES:
        assert rule.says[1:] in rows[rule.column]
    assert "| vace |" in rows["mask"]
    assert "Needs `video`." in rows["mask"]
    assert "Excludes `width`, `height`." in rows["size"]
    assert "multiples of 16 (ti2v-5b: 32)" in rows["size"]
    assert "4n+1; flf2v: at least 5; t2i: 1" in rows["num_frames"]
