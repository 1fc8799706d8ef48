"""Prompts, JSONL and CSV to a Parquet manifest."""

import importlib

import pyarrow as pa
import pytest
from pyarrow import parquet

from wanray.errors import ManifestError
from wanray.manifest import convert
from wanray.manifest.columns import GUIDANCE, MEDIA


def converted(tmp_path, name, content):
    source, target = tmp_path / name, tmp_path / "out" / "m.parquet"
    source.write_text(content, encoding="utf-8")
    num_rows = convert(str(source), str(target))
    table = parquet.read_table(target)
    assert num_rows == len(table)
    assert [path.name for path in target.parent.iterdir()] == ["m.parquet"]
    return table


def test_prompts_one_per_line(tmp_path):
    table = converted(tmp_path, "prompts.txt", "\ufeffa fox \n\n  a cat\n\u72d0\n")
    assert table.to_pydict() == {"prompt": ["a fox", "a cat", "\u72d0"]}


def test_csv_gets_canonical_types_and_keeps_unknown_columns(tmp_path):
    table = converted(
        tmp_path, "m.csv", "id,prompt,steps,guidance,image,mood\n7,a,20,4,a.png,calm\n8,b,,,,\n"
    )
    assert table.schema == pa.schema(
        [
            ("id", pa.string()),
            ("prompt", pa.string()),
            ("steps", pa.int64()),
            ("guidance", GUIDANCE),
            ("image", MEDIA),
            ("mood", pa.string()),
        ]
    )
    assert table["steps"].to_pylist() == [20, None]
    assert table["mood"].to_pylist() == ["calm", None]


def test_columns_of_all_batches_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("wanray.manifest.convert"), "BATCH_ROWS", 1)
    content = '{"prompt": "a", "mark": 5}\n{"steps": 3, "mark": null}\n{"prompt": "c", "mark": [1]}\n'
    table = converted(tmp_path, "m.jsonl", content)
    assert table.to_pydict() == {
        "prompt": ["a", None, "c"],
        "mark": ["5", None, "[1]"],
        "steps": [None, 3, None],
    }


def test_result_converts_to_itself(tmp_path):
    first = converted(
        tmp_path, "m.jsonl", '{"prompt": "a", "seeds": [1, 2], "tags": {"b": 1}, "mark": {"x": 1}}\n'
    )
    convert(str(tmp_path / "out" / "m.parquet"), str(tmp_path / "again.parquet"))
    assert parquet.read_table(tmp_path / "again.parquet") == first


def test_problems_are_listed_and_nothing_is_written(tmp_path):
    content = "id,steps,num_frames\n" + "".join(f"r{i},0,80\n" for i in range(30))
    with pytest.raises(ManifestError) as caught:
        converted(tmp_path, "m.csv", content)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("m.csv has 30 problems, nothing was written; first:")
    assert lines[1] == '  row 0 (id "r0"), column steps: must be 1 to 1000, got 0'
    assert len(lines) == 21
    assert not (tmp_path / "out").exists()


def test_empty_text_file(tmp_path):
    with pytest.raises(ManifestError, match=r"p\.txt is empty: it needs at least one prompt"):
        converted(tmp_path, "p.txt", "\n\n")


def test_target_must_be_parquet(tmp_path):
    with pytest.raises(ManifestError, match=r"m\.csv would be Parquet: let its name end with \.parquet"):
        convert(str(tmp_path / "m.jsonl"), str(tmp_path / "m.csv"))
