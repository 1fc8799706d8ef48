"""Reading: formats, folders, batches, broken files."""

import json

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from wanray.errors import ManifestError
from wanray.manifest import read_batches
from wanray.manifest.arrays import JSON, PROBLEM

ROWS = [{"id": f"r{i}", "prompt": f"a fox, {i}", "seed": i} for i in range(10)]


def rows(url, batch_rows=16384):
    return [row for table in read_batches(str(url), batch_rows) for row in table.to_pylist()]


def write_jsonl(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_parquet_streams_in_order(tmp_path):
    path = tmp_path / "m.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=4)
    assert rows(path) == ROWS
    assert [len(table) for table in read_batches(str(path), 3)] == [3, 3, 3, 1]


def test_parquet_batches_shrink_when_rows_are_heavy(tmp_path, monkeypatch):
    monkeypatch.setattr("wanray.manifest.read.BATCH_BYTES", 10_000)
    path = tmp_path / "m.parquet"
    content = [bytes([i]) * 5000 for i in range(8)]
    parquet.write_table(pa.table({"image": content}), path, use_dictionary=False, compression="none")
    assert max(len(table) for table in read_batches(str(path))) <= 2


def test_folder_is_read_by_name_and_may_differ_in_columns(tmp_path):
    parquet.write_table(pa.table({"prompt": ["b"], "steps": [4]}), tmp_path / "2.parquet")
    parquet.write_table(pa.table({"prompt": ["a"]}), tmp_path / "1.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert rows(tmp_path) == [{"prompt": "a"}, {"prompt": "b", "steps": 4}]
    assert rows(tmp_path / "*.parquet") == rows(tmp_path)


def test_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "m.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert rows("m.jsonl") == ROWS


def test_fsspec_url():
    fsspec.filesystem("memory").pipe("/manifests/m.jsonl", b'{"prompt": "a"}\n')
    assert rows("memory://manifests/m.jsonl") == [{"prompt": "a"}]
    assert rows("memory://manifests") == [{"prompt": "a"}]


@pytest.mark.parametrize("name", ["m.jsonl", "m.ndjson", "M.JSONL"])
def test_jsonl(tmp_path, name):
    assert rows(write_jsonl(tmp_path / name, ROWS), 3) == ROWS


def test_jsonl_counts_empty_rows(tmp_path):
    assert rows(write_jsonl(tmp_path / "m.jsonl", [{}, {}])) == [{"prompt": None}] * 2


def test_jsonl_keeps_broken_lines_as_rows(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "a"}\n\n{"prompt": \n[1]\n'
        b'{"fps": NaN}\n{"prompt": "\\ud800"}\n\xff\n{"prompt": "b"}'
    )
    found = rows(path)
    assert [row["prompt"] for row in found] == ["a", None, None, None, None, None, "b"]
    messages = [row[PROBLEM] for row in found]
    assert messages[0] is None
    assert f"line 3 of {path} is not JSON" in messages[1]
    assert f"line 4 of {path} is not a JSON object: b'[1]" in messages[2]
    assert "NaN is not a JSON value" in messages[3]
    assert "surrogates" in messages[4]
    assert "line 7" in messages[5]


def test_jsonl_carries_mixed_types_as_json(tmp_path):
    path = write_jsonl(
        tmp_path / "m.jsonl", [{"guidance": 5, "seed": 2**70}, {"guidance": {"high": 1, "low": 2}}]
    )
    (table,) = read_batches(str(path))
    assert table.schema.field("guidance").type == JSON
    assert table["guidance"].to_pylist() == ["5", '{"high": 1, "low": 2}']
    assert table["seed"].to_pylist() == [str(2**70), None]


def test_csv_is_text_with_nulls(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('\ufeffid,prompt,seed\n007,"two\nlines, ""quoted""",\n,b,5\n')
    assert rows(path) == [
        {"id": "007", "prompt": 'two\nlines, "quoted"', "seed": None},
        {"id": None, "prompt": "b", "seed": "5"},
    ]
    assert [len(table) for table in read_batches(str(path), 1)] == [1, 1]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.parquet", b"not parquet at all", "is it really a .parquet file"),
        ("m.parquet", b"", "cannot be read"),
        ("m.jsonl", b"\n", "is empty: it needs at least one row"),
        ("m.csv", b"", "is empty: it needs at least one row"),
        ("m.csv", b"prompt\n", "is empty: it needs at least one row"),
        ("m.csv", b"prompt\ncaf\xe9\n", "UTF-8"),
        ("m.csv", b"prompt,prompt\na,b\n", "more than one column prompt"),
        ("m.txt", b"a fox", "wanray manifest"),
    ],
)
def test_unusable_file(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(ManifestError) as caught:
        rows(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_file_folder_and_glob(tmp_path):
    for url in (tmp_path / "none.parquet", tmp_path / "*.csv"):
        with pytest.raises(ManifestError, match="does not exist"):
            rows(url)
    with pytest.raises(ManifestError, match="is an empty folder: put"):
        rows(tmp_path)


def test_csv_rows_of_another_length_come_last(tmp_path):
    path = write(tmp_path, "m.csv", b"id,prompt\na,b,c\nd,e\nf\n")
    first, *torn = read_batches(str(path))
    assert first.to_pylist() == [{"id": "d", "prompt": "e"}]
    messages = [message for table in torn for message in table[PROBLEM].to_pylist()]
    assert messages == [
        f"row 2 of {path} has 3 values for 2 columns: quote what holds a comma, got 'a,b,c'",
        f"row 4 of {path} has 1 values for 2 columns: quote what holds a comma, got 'f'",
    ]


def test_mixed_folder(tmp_path):
    write(tmp_path, "a.csv", b"prompt\na\n")
    write_jsonl(tmp_path / "b.jsonl", ROWS)
    with pytest.raises(ManifestError, match=r"mixes \.csv, \.jsonl files: use a glob"):
        rows(tmp_path)


def test_unknown_store():
    with pytest.raises(ManifestError, match=r"nowhere://m.parquet cannot be read: .*check the address"):
        rows("nowhere://m.parquet")
