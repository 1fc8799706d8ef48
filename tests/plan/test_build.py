"""Which requests are left, in which order: committed, repeated and ambiguous ones."""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wanray.config import DefaultsConfig
from wanray.manifest import Resolver, read_batches, resolve
from wanray.plan import build
from wanray.plan.build import select_requests
from wanray.registry import get_model

MODEL = get_model("t2v-a14b")
SHAPE = {"width": 64, "height": 64, "num_frames": 5, "steps": 4}


def select(tmp_path, rows, committed=(), batch_rows=16384):
    """(selection, rows of the plan in the order of work)."""
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    resolver = Resolver(
        model=MODEL,
        model_json={"name": "m", "digest": "d"},
        numerics={"mode": "official"},
        official=MODEL.defaults,
        defaults=DefaultsConfig(),
        sweep={},
        keep=lambda sha256, content: "",
    )
    parts = {}
    batches = read_batches(str(tmp_path / "m.parquet"), batch_rows)
    selection = select_requests(resolve(batches, resolver), set(committed), parts.__setitem__)
    assert selection.parts == list(parts) or sorted(selection.parts) == sorted(parts)
    plan = [row for name in sorted(parts) for row in pq.read_table(BytesIO(parts[name])).to_pylist()]
    return selection, plan


def row(name, seed=1, **columns):
    return {"id": name, "prompt": f"prompt {seed}", "seed": seed, "priority": 0, **SHAPE, **columns}


def test_equal_requests_are_rendered_once_under_all_their_ids(tmp_path):
    rows = [row("a"), row("b", seed=2), row("c"), row("c"), row("d", seed=2)]
    selection, plan = select(tmp_path, rows, batch_rows=2)
    assert [item["ids"] for item in plan] == [["a", "c"], ["b", "d"]]
    assert (selection.counts.requests, selection.counts.merged, selection.counts.left) == (5, 3, 2)


def test_committed_requests_are_dropped(tmp_path):
    rows = [row("a"), row("b", seed=2), row("c", seed=3), row("c2", seed=3)]
    _, plan = select(tmp_path, rows)
    done = [bytes.fromhex(plan[0]["key"]), bytes.fromhex(plan[2]["key"])]
    selection, rest = select(tmp_path, rows, done)
    assert [item["ids"] for item in rest] == [["b"]]
    assert (selection.counts.committed, selection.counts.left) == (2, 1)


def test_an_id_for_two_requests_makes_the_later_row_invalid(tmp_path):
    selection, plan = select(tmp_path, [row("a"), row("b", seed=2), row("a", seed=3)])
    assert [item["ids"] for item in plan] == [["a"], ["b"]]
    assert selection.counts.invalid == 1
    assert selection.problems.messages == [
        'row 2 (id "a"), column id: is already used by row 0 with other parameters: give it an id of its own'
    ]
    assert selection.invalid["message"].to_pylist() == selection.problems.messages
    assert len(selection.invalid["key"][0].as_py()) == 64


def test_priority_first_then_shapes_together_then_manifest_order(tmp_path):
    rows = [
        row("small-0", seed=0),
        row("large-0", seed=1, width=128),
        row("small-1", seed=2),
        row("urgent", seed=3, priority=5),
        row("large-1", seed=4, width=128),
        row("last", seed=5, priority=-5),
    ]
    _, plan = select(tmp_path, rows, batch_rows=2)
    order = [item["ids"][0] for item in plan]
    assert order == ["urgent", "small-0", "small-1", "large-0", "large-1", "last"]


@pytest.mark.parametrize("part_rows", [1, 3, 100])
def test_parts_hold_every_request_once(tmp_path, monkeypatch, part_rows):
    monkeypatch.setattr(build, "PART_ROWS", part_rows)
    monkeypatch.setattr(build, "BUFFERED_ROWS", 7)
    rows = [row(f"r{i}", seed=i, width=64 + 16 * (i % 3)) for i in range(20)]
    selection, plan = select(tmp_path, rows, batch_rows=6)
    assert sorted(item["ids"][0] for item in plan) == sorted(item["id"] for item in rows)
    assert sum(selection.costs.values()) == 20


def test_the_same_manifest_gives_the_same_bytes(tmp_path):
    rows = [row(f"r{i}", seed=i % 4) for i in range(10)]
    assert select(tmp_path, rows)[1] == select(tmp_path, rows)[1]


def test_digests_that_end_in_zero_bytes_are_found(tmp_path):
    """numpy strips zeros from the end of byte strings; keys must not lose them."""
    assert build._padded(b"ab") == b"ab" + bytes(30)
