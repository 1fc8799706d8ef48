"""From raw rows to requests: precedence, expansion, keys, failures."""

import hashlib
import importlib
import json
import logging
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanray.config.schema import DefaultsConfig
from wanray.errors import ConfigError, ManifestError
from wanray.manifest import INVALID_SCHEMA, REQUEST_SCHEMA, Resolver, check_defaults, read_batches, resolve
from wanray.manifest.arrays import table_of
from wanray.records import FORMAT_VERSION, Record, Request, canonical_json, content_key
from wanray.registry import Guidance, get_model

MODEL = get_model("t2v-a14b")
MODEL_JSON = {"name": MODEL.name, "digest": "d" * 64}
NUMERICS = {"mode": "official", "dtype": "bfloat16", "noise": "cpu"}
RESOLVER = Resolver(
    model=MODEL,
    model_json=MODEL_JSON,
    numerics=NUMERICS,
    official=MODEL.defaults,
    defaults=DefaultsConfig(),
    sweep={},
    keep=lambda sha256, content: f"kept/{sha256}",
)


def run(*batches, sweep=None, **defaults):
    """The pieces that come of batches of dicts."""
    resolver = replace(RESOLVER, defaults=DefaultsConfig(**defaults), sweep=sweep or {})
    return list(resolve((table_of(list(batch)) for batch in batches), resolver))


def requests(*rows, **settings):
    """(id, Request) of every request that comes of rows given as dicts; none may be invalid."""
    found = run(rows, **settings)
    assert [problem for piece in found for problem in piece.problems] == []
    plan = [row for piece in found for row in piece.requests.to_pylist()]
    return [(row["ids"][0], Request.from_json(row["request"])) for row in plan]


def request(row, **settings):
    ((_, found),) = requests(row, **settings)
    return found


def values(column, *rows, **settings):
    return [getattr(found, column) for _, found in requests(*rows, **settings)]


def test_official_defaults_fill_a_bare_row():
    assert request({"prompt": "a fox", "seed": 5}) == Request(
        task="t2v",
        prompt="a fox",
        negative_prompt=MODEL.defaults.negative_prompt,
        width=1280,
        height=720,
        num_frames=81,
        fps=16.0,
        seed=5,
        steps=40,
        shift=12.0,
        guidance=Guidance(high=4.0, low=3.0),
        solver="unipc",
    )


def test_plan_columns():
    (piece,) = run([{"id": "cat", "prompt": "a", "seed": 1, "priority": 7, "tags": {"b": 1}}])
    assert piece.requests.schema == REQUEST_SCHEMA
    assert piece.invalid.schema == INVALID_SCHEMA
    assert piece.num_rows == 1
    (row,) = piece.requests.to_pylist()
    assert row["ids"] == ["cat"]
    assert (row["row"], row["priority"], row["width"], row["height"]) == (0, 7, 1280, 720)
    assert (row["num_frames"], row["steps"], row["tags"]) == (81, 40, '{"b":1}')
    assert row["digest"].hex() == row["key"] == content_key(row["request"], MODEL_JSON, NUMERICS)
    assert Record.from_plan(row).tags == {"b": 1}


def test_row_beats_config_beats_official():
    rows = {"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 1, "steps": 7}
    assert values("steps", *rows) == [40, 7]
    assert values("steps", *rows, steps=9) == [9, 7]


def test_size_and_sides_beat_one_another_by_place():
    rows = (
        {"prompt": "a", "size": "64x32"},
        {"prompt": "a", "width": 64},
        {"prompt": "a"},
    )
    sizes = [(found.width, found.height) for _, found in requests(*rows, width=128, height=96)]
    assert sizes == [(64, 32), (64, 96), (128, 96)]
    sizes = [(found.width, found.height) for _, found in requests(*rows, size="160*80")]
    assert sizes == [(64, 32), (64, 80), (160, 80)]


def test_one_number_guides_both_experts():
    rows = {"prompt": "a", "guidance": 5}, {"prompt": "a", "guidance": {"high": 1, "low": 2}}, {"prompt": "a"}
    assert values("guidance", *rows, guidance={"high": 6, "low": 7}) == [
        Guidance(high=5.0, low=5.0),
        Guidance(high=1.0, low=2.0),
        Guidance(high=6.0, low=7.0),
    ]


def test_an_empty_negative_prompt_is_the_official_one_in_official_mode_only():
    rows = [{"prompt": "a", "negative_prompt": text} for text in ("", None, " ")]
    official = MODEL.defaults.negative_prompt
    assert values("negative_prompt", *rows, negative_prompt="blurry") == [official, "blurry", " "]
    resolver = replace(RESOLVER, numerics=NUMERICS | {"mode": "diffusers"})
    (piece,) = resolve(iter([table_of(rows)]), resolver)
    found = [Request.from_json(text).negative_prompt for text in piece.requests["request"].to_pylist()]
    assert found == ["", official, " "]


def test_default_prompt():
    assert values("prompt", {"id": "x"}, {"prompt": "b"}, prompt="a") == ["a", "b"]


def test_seeds_multiply():
    found = requests({"id": "x", "prompt": "a", "seeds": [3, 4]}, {"id": "y", "prompt": "a", "seeds": [5]})
    assert [(id_, item.seed) for id_, item in found] == [("x#seed=3", 3), ("x#seed=4", 4), ("y", 5)]


def test_a_rows_seed_beats_default_seeds_and_the_reverse():
    rows = {"prompt": "a", "seed": 9}, {"prompt": "a", "seeds": [7, 8]}, {"prompt": "a"}
    assert values("seed", *rows, seeds=[1, 2]) == [9, 7, 8, 1, 2]
    assert values("seed", *rows, seed=1) == [9, 7, 8, 1]


def test_sweep_multiplies_after_seeds_and_names_what_varies():
    sweep = {"steps": [20, 30], "fps": [16], "guidance": [5, {"high": 1, "low": 2}]}
    found = requests({"id": "x", "prompt": "a", "seeds": [3, 4], "steps": 7}, sweep=sweep)
    assert [id_ for id_, _ in found] == [
        f"x#seed={seed},steps={steps},guidance={guidance}"
        for seed in (3, 4)
        for steps in (20, 30)
        for guidance in ("5", "1/2")
    ]
    assert [(item.seed, item.steps, item.guidance.low) for _, item in found][:3] == [
        (3, 20, 5.0),
        (3, 20, 2.0),
        (3, 30, 5.0),
    ]


def test_sweep_of_seed_size_and_prompt():
    sweep = {"seed": [1, 2], "size": ["64x32"], "prompt": ["b", "c"]}
    found = requests({"id": "x", "width": 128, "seeds": [8, 9]}, sweep=sweep)
    assert [id_ for id_, _ in found] == [f"x#seed={s},prompt={p}" for s in (1, 2) for p in (0, 1)]
    assert [(item.seed, item.width, item.height, item.prompt) for _, item in found] == [
        (seed, 64, 32, prompt) for seed in (1, 2) for prompt in "bc"
    ]


def test_pieces_bound_the_requests_held(monkeypatch):
    monkeypatch.setattr(importlib.import_module("wanray.manifest.resolve"), "MAX_REQUESTS", 8)
    rows = [{"prompt": f"{i}"} for i in range(5)]
    found = run(rows, sweep={"steps": [1, 2]}, seeds=[1, 2])
    assert [len(piece.requests) for piece in found] == [8, 8, 4]
    assert [piece.num_rows for piece in found] == [2, 2, 1]


def test_derived_seed_is_stable_and_comes_from_the_rest_of_the_key():
    (piece,) = run([{"prompt": "a"}, {"prompt": "b"}])
    for text in piece.requests["request"].to_pylist():
        rest = json.loads(text)
        seed = rest.pop("seed")
        whole = {"format": FORMAT_VERSION, "model": MODEL_JSON, "numerics": NUMERICS, "request": rest}
        assert seed == int.from_bytes(hashlib.sha256(canonical_json(whole).encode()).digest()[:4], "big")
    assert len(set(values("seed", {"prompt": "a"}, {"prompt": "b"}))) == 2


PROMPTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
ROWS = st.fixed_dictionaries(
    {"prompt": PROMPTS},
    optional={
        "negative_prompt": st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        "seed": st.integers(0, 2**63 - 1),
        "steps": st.integers(1, 1000),
        "shift": st.floats(0.01, 100),
        "fps": st.integers(1, 240) | st.floats(1, 240),
        "guidance": st.floats(0, 100)
        | st.fixed_dictionaries({"high": st.floats(0, 100), "low": st.integers(0, 100)}),
        "solver": st.sampled_from(["unipc", "dpm++"]),
        "num_frames": st.integers(0, 100).map(lambda n: 4 * n + 1),
        "width": st.integers(1, 512).map(lambda n: 16 * n),
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_json_and_keys_are_those_of_request(rows):
    (piece,) = run(rows)
    assert piece.problems == []
    for row, plan in zip(rows, piece.requests.to_pylist(), strict=True):
        found = Request.from_json(plan["request"])
        assert found.to_json() == plan["request"]
        assert content_key(plan["request"], MODEL_JSON, NUMERICS) == plan["key"] == plan["digest"].hex()
        assert found.prompt == row["prompt"]
        for name in set(row) - {"guidance"}:
            official = name == "negative_prompt" and row[name] == ""
            assert getattr(found, name) == (MODEL.defaults.negative_prompt if official else row[name])


def test_rows_count_on_over_batches():
    found = run([{"prompt": "a"}, {"prompt": "b"}], [{"prompt": "c", "steps": 0}, {"prompt": "d"}])
    assert [row for piece in found for row in piece.requests["row"].to_pylist()] == [0, 1, 3]
    assert found[1].requests["ids"].to_pylist() == [["row-0000003"]]
    assert str(found[1].problems[0]).startswith('row 2 (id "row-0000002"), column steps: must be 1 to 1000')


def test_invalid_rows_carry_all_their_problems_and_a_stable_key():
    bad = {"id": "cat", "prompt": " ", "num_frames": 80, "steps": "x"}
    (piece,) = run([{"prompt": "a"}, bad])
    assert len(piece.requests) == 1
    (row,) = piece.invalid.to_pylist()
    assert (row["row"], row["id"]) == (1, "cat")
    assert row["message"] == (
        "row 1 (id \"cat\"), column steps: must be a whole number, got 'x'; "
        "column num_frames: must be 4n+1 (5, 9, ..., 81), got 80; column prompt: must not be blank, got ' '"
    )
    assert row["key"] == hashlib.sha256(canonical_json(bad).encode()).hexdigest()
    ((again,),) = [piece.invalid.to_pylist() for piece in run([bad | {"size": None}])]
    assert again["key"] == row["key"]


def test_broken_lines_are_invalid_rows(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt"\n{"prompt": 5}\n')
    (piece,) = resolve(read_batches(str(path)), RESOLVER)
    assert len(piece.requests) == 1
    assert [problem.row for problem in piece.problems] == [1, 2]
    assert str(piece.problems[0]).startswith(f'row 1 (id "row-0000001"): line 2 of {path} is not JSON: ')
    assert str(piece.problems[1]).endswith("column prompt: must be UTF-8 text, got 5")


def test_missing_prompt_is_a_problem_of_its_row():
    (piece,) = run([{"prompt": "a"}, {"prompt": None}])
    assert [str(problem) for problem in piece.problems] == [
        'row 1 (id "row-0000001"), column prompt: is required: give it in the row or as defaults.prompt'
    ]


def test_long_and_odd_ids_are_whole_in_the_record_and_cut_in_the_message():
    (piece,) = run([{"id": "x\n" * 200, "prompt": "a"}])
    (row,) = piece.invalid.to_pylist()
    assert row["id"] == "x\n" * 200
    assert row["message"].startswith('row 0 (id "x\\nx\\n')
    assert "\n" not in row["message"]


def test_inputs_that_the_model_does_not_take_are_refused_unseen():
    rows = [{"prompt": "a", "image": "none.png"}, {"prompt": "a", "max_area": 256}]
    (piece,) = run(rows)
    assert [problem.row for problem in piece.problems] == [0, 1]
    assert "takes no image: leave it out, got 'none.png'" in piece.problems[0].message
    assert "takes no max_area" in piece.problems[1].message


def test_unknown_columns_become_tags_with_one_warning(caplog):
    batch = [{"prompt": "a", "mood": "calm", "tags": {"take": 2}}, {"prompt": "b", "mood": None}]
    with caplog.at_level(logging.WARNING):
        found = run(batch, batch, tags={"take": 1, "set": "x"})
    tags = [json.loads(row) for piece in found for row in piece.requests["tags"].to_pylist()]
    assert tags == [{"take": 2, "set": "x", "mood": "calm"}, {"take": 1, "set": "x"}] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "manifest columns mood are unknown: carried along as tags"
    ]


def test_unknown_columns_of_any_type_become_json(caplog):
    table = pa.table({"prompt": ["a"], "raw": [b"xyz"], "score": [float("nan")], "box": [{"x": [1, 2]}]})
    (piece,) = resolve(iter([table]), RESOLVER)
    assert json.loads(piece.requests["tags"][0].as_py()) == {
        "raw": f"sha256:{hashlib.sha256(b'xyz').hexdigest()}",
        "score": "nan",
        "box": {"x": [1, 2]},
    }


def test_manifest_without_a_usable_column():
    with pytest.raises(
        ManifestError, match=r"no column prompt, only id, text: rename one or set defaults\.prompt"
    ):
        run([{"id": "a", "text": "a fox"}])


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"num_frames": 80}, r"defaults\.num_frames must be 4n\+1 .*, got 80"),
        ({"width": 830}, r"defaults\.width must be a multiple of 16 pixels, got 830"),
        ({"size": "big"}, r"defaults\.size must be WIDTHxHEIGHT"),
        ({"guidance": "x"}, r"defaults\.guidance must be a number or"),
        ({"seeds": []}, r"defaults\.seeds must hold at least one seed"),
        ({"task": "i2v", "fps": 0}, r"defaults\.fps must be 0.1 to 240.*; defaults\.task must be t2v or t2i"),
        ({"tags": {"a": float("nan")}, "shift": float("nan")}, r"defaults\.shift must be a finite number"),
    ],
)
def test_bad_defaults(defaults, message):
    with pytest.raises(ConfigError, match=message):
        run([{"prompt": "a"}], **defaults)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"step": [1]}, r"sweep\.step is not a column that can be swept: did you mean sweep\.steps\?"),
        ({"tags": [{}]}, r"sweep\.tags is not a column that can be swept: use seed, steps"),
        ({"steps": []}, r"sweep\.steps must be a list of at least one value and no null, got \[\]"),
        ({"steps": [1, None]}, r"sweep\.steps must be a list of at least one value and no null"),
        ({"steps": [1, 0]}, r"sweep\.steps must be 1 to 1000, got 0"),
        ({"guidance": [1, {"high": 1}]}, r"sweep\.guidance must be a number or {high, low}"),
        ({"size": ["64x32"], "width": [64]}, r"sweep\.size excludes sweep\.width: keep one way"),
    ],
)
def test_bad_sweep(sweep, message):
    with pytest.raises(ConfigError, match=message):
        resolve(iter([]), replace(RESOLVER, sweep=sweep))


def test_defaults_of_a_config_are_good():
    check_defaults(
        DefaultsConfig(size="832x480", guidance={"high": 4, "low": 3}, seeds=[1], tags={"a": 1}), MODEL
    )
