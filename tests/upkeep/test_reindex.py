"""`wanray index` makes what the runs wrote."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wanray.sinks.index import INDEX_SCHEMA, append_index, indexed_bytes, indexed_keys
from wanray.sinks.ledger import clip_folder
from wanray.storage import Store
from wanray.upkeep import reindex
from wanray.upkeep.reindex import rebuild_index


def rows(output: Any) -> list[dict[str, Any]]:
    parts = [output.store.read(f"index/{name}") for name in output.store.names("index")]
    tables = [pq.read_table(pa.BufferReader(part)) for part in parts]
    assert all(table.schema == INDEX_SCHEMA for table in tables)
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["key"])


def timeless(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run's rows have the second in which the driver heard of the clip."""
    return [row | {"created_at": ""} for row in found]


def test_a_new_index_is_what_the_run_wrote(output: Any) -> None:
    before = rows(output)
    assert [row["key"] for row in before] == output.keys
    done = rebuild_index(output.ledger)
    assert (done.num_clips, done.num_unreadable, done.num_parts, done.num_old_parts) == (3, 0, 1, 1)
    after = rows(output)
    assert timeless(after) == timeless(before)
    assert [row["created_at"] for row in after] == [output.meta(key)["created_at"] for key in output.keys]


def test_parts_are_bounded(local_output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex, "PART_ROWS", 2)
    assert rebuild_index(local_output.ledger).num_parts == 2
    assert len(local_output.store.names("index")) == 2
    assert [row["key"] for row in rows(local_output)] == local_output.keys


def test_a_clip_without_meta_leaves_the_index(local_output: Any, caplog: pytest.LogCaptureFixture) -> None:
    gone, broken, whole = local_output.keys
    local_output.store.delete(f"{clip_folder(gone)}/meta.json")
    local_output.store.write(f"{clip_folder(broken)}/meta.json", b'{"key": 1}')
    done = rebuild_index(local_output.ledger)
    assert (done.num_clips, done.num_unreadable) == (1, 1)
    assert f"key={broken}" in caplog.text
    assert [row["key"] for row in rows(local_output)] == [whole]


def test_an_output_without_clips_gets_an_empty_index(local_output: Any) -> None:
    for path in local_output.store.find("clips"):
        local_output.store.delete(path)
    assert rebuild_index(local_output.ledger).num_parts == 0
    assert local_output.store.names("index") == []


def test_what_a_run_adds_meanwhile_stays(local_output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"key": "ab" + "0" * 62, "ids": ["1"], "bytes": 7}

    def appending(store: Store, name: str, found: list[dict[str, Any]], part: int) -> None:
        append_index(store, name, found, part)
        append_index(store, "run-2", [row], 0)

    monkeypatch.setattr(reindex, "append_index", appending)
    rebuild_index(local_output.ledger)
    assert len(indexed_keys(local_output.store)) == 4


def test_killed_before_the_old_parts_went_it_leaves_rows_twice(
    local_output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(store: Store, path: str) -> None:
        raise KeyboardInterrupt

    sizes = indexed_bytes(local_output.store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", dying)
        with pytest.raises(KeyboardInterrupt):
            rebuild_index(local_output.ledger)
    assert len(rows(local_output)) == 6
    assert indexed_bytes(local_output.store) == sizes
    assert len(local_output.ledger.committed_keys()) == 3
    assert rebuild_index(local_output.ledger).num_old_parts == 2
    assert len(rows(local_output)) == 3


def test_a_part_that_goes_while_it_is_read_is_passed_over(
    local_output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = local_output.store.names("index")
    monkeypatch.setattr(Store, "names", lambda store, prefix: ["gone.parquet", *names])
    assert len(indexed_keys(local_output.store)) == 3


def test_the_command_prints_counts(local_output: Any, run_cli: Any) -> None:
    code, out, _ = run_cli("index", local_output.url)
    assert code == 0
    assert out.startswith("3 clips in 1 index files; 1 old ones removed, in ")
    local_output.store.write(f"{clip_folder(local_output.keys[0])}/meta.json", b"{}")
    assert "1 left out (`wanray verify` tells why)" in run_cli("index", local_output.url)[1]
    assert Path(local_output.url, "index").is_dir()
