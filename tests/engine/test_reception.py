"""The endpoint's reception: JSON in, a record or all that is wrong with it out, as a manifest's rules say."""

import base64
import hashlib
import io
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wanray.config import make_config
from wanray.engine.endpoint.reception import Reception, RefusedError
from wanray.engine.ground import lay_ground
from wanray.errors import StorageError
from wanray.manifest import read_batches, resolve
from wanray.manifest.columns import COLUMNS, MEDIA_COLUMNS
from wanray.manifest.media import MAX_BYTES
from wanray.records import Record

SMALL = {"width": 64, "height": 64, "num_frames": 5, "steps": 2}
CAT = {"prompt": "a cat", "seed": 1, **SMALL}


@pytest.fixture(scope="session")
def reception(tiny, tmp_path_factory):
    """reception(model, allow_uris, **keys) -> Reception; its media lie in `.store`."""

    def make(model="ti2v-5b", allow_uris=False, **keys):
        out = tmp_path_factory.mktemp("reception")
        values = {"model": {"path": str(tiny(model))}, "output": {"url": str(out)}, "run": "r"}
        values |= {"numerics": {"dtype": "float32"}} | keys
        ground = lay_ground(make_config(values, "test", needs_manifest=False), keeps=True)
        made = Reception(ground.resolver, allow_uris)
        made.resolver, made.store = ground.resolver, ground.ledger.store
        return made

    return make


@pytest.fixture(scope="module")
def texts(reception):
    return reception()


def png(colour="red", size=(64, 64)):
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, "PNG")
    return sink.getvalue()


def data_uri(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def problems(made, row):
    """[(field, message)] of a row that must be refused, as they go over the wire."""
    with pytest.raises(RefusedError) as refused:
        made.accept(row)
    text = json.dumps(refused.value.problems, ensure_ascii=False).encode()
    return [(item["field"], item["message"]) for item in json.loads(text)]


def of_manifest(made, rows, folder, suffix):
    """The records of the same rows in a manifest."""
    path = folder / f"m{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = [*resolve(read_batches(str(path)), made.resolver)]
    assert [problem for part in found for problem in part.problems] == []
    tables = [part.requests.slice(n, 1) for part in found for n in range(len(part.requests))]
    return [Record.from_table(table) for table in tables]


# What is accepted


def test_a_row_becomes_the_record_of_the_same_row_in_a_manifest(texts, tmp_path):
    rows = [
        {"id": "a", **CAT, "tags": {"scene": "beach"}},
        {"id": "b", **CAT, "guidance": 3, "negative_prompt": "dark"},
        {"id": "c", **CAT, "guidance": {"high": 3, "low": 4.5}, "fps": 24, "shift": 3, "solver": "dpm++"},
        {"id": "d", "prompt": "Ein Kätzchen 🐈", "size": "96x64", "num_frames": 9, "steps": 1},
        {"id": "e", "prompt": "without a seed", **SMALL},
        {"id": "f", "prompt": "official size and steps"},
    ]
    expected = of_manifest(texts, rows, tmp_path, ".jsonl")
    for row, record in zip(rows, expected, strict=True):
        assert texts.accept(row) == (record, 0)
    assert len({record.key for record in expected}) == len(rows)


def test_a_column_of_its_own_type_gives_the_same_key(texts, tmp_path):
    row = {"id": "a", **CAT, "fps": 24.0, "priority": 3, "key_frames": None}
    (expected,) = of_manifest(texts, [row], tmp_path, ".parquet")
    assert texts.accept(row) == (expected, 3)


def test_an_image_that_comes_along_gives_the_key_of_one_in_a_manifest(reception, tmp_path):
    made, content = reception(), png()
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    record, _ = made.accept({**CAT, "image": data_uri(content)})
    (named,) = of_manifest(made, [{**CAT, "image": str(path)}], tmp_path, ".jsonl")
    (inside,) = of_manifest(
        made, [{**CAT, "image": {"bytes": content, "path": "cat.png"}}], tmp_path, ".parquet"
    )
    assert record.key == named.key == inside.key
    assert record.request.task == "i2v"
    sha256 = hashlib.sha256(content).hexdigest()
    assert record.request.inputs == {"image": (sha256,)}
    assert record.sources == {sha256: made.store.uri(f"inputs/{sha256}")}
    assert made.store.read(f"inputs/{sha256}") == content
    other, _ = made.accept({**CAT, "image": data_uri(png("blue"))})
    assert other.key != record.key


def test_what_the_data_uri_says_of_its_type_does_not_matter(texts):
    keys = {
        texts.accept({**CAT, "image": data_uri(png(), kind)})[0].key for kind in ("image/png", "", "text/x")
    }
    assert len(keys) == 1


def test_lists_of_images_come_along(reception, tmp_path):
    made = reception("vace-1.3b")
    images = [png("red"), png("blue", (48, 32))]
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, content in zip(paths, images, strict=True):
        path.write_bytes(content)
    record, _ = made.accept({**CAT, "reference_images": [data_uri(content) for content in images]})
    (named,) = of_manifest(made, [{**CAT, "reference_images": [*map(str, paths)]}], tmp_path, ".jsonl")
    assert record.key == named.key
    assert len(record.request.inputs["reference_images"]) == 2


def test_ids_are_ones_own_or_new(texts):
    assert texts.accept({"id": "mine", **CAT})[0].ids == ("mine",)
    assert texts.accept({"id": 7, **CAT})[0].ids == ("7",)
    made = {texts.accept(row)[0].ids for row in [CAT, {"id": None, **CAT}] * 2}
    assert len(made) == 4, "rows without an id are told apart"


def test_ids_tags_and_priority_do_not_decide_the_key(texts):
    rows = [CAT, {"id": "x", **CAT}, {"priority": 9, **CAT}, {"tags": {"a": [1, {"b": None}]}, **CAT}]
    found = [texts.accept(row) for row in rows]
    assert len({record.key for record, _ in found}) == 1
    assert [priority for _, priority in found] == [0, 0, 9, 0]
    assert found[3][0].tags == {"a": [1, {"b": None}]}


def test_defaults_and_tags_of_the_config_hold(reception):
    made = reception(defaults={"size": "96x64", "num_frames": 5, "steps": 3, "tags": {"job": "online"}})
    record, _ = made.accept({"prompt": "a cat", "tags": {"a": 1}, "steps": None})
    assert (record.request.width, record.request.height, record.request.steps) == (96, 64, 3)
    assert record.tags == {"job": "online", "a": 1}


def test_a_prompt_may_come_from_the_config(reception):
    made = reception(defaults={"prompt": "a dog"})
    assert made.accept({})[0].request.prompt == "a dog"


def test_numbers_may_be_texts_and_nulls_are_left_out(texts):
    row = {name: str(value) for name, value in SMALL.items()} | {"seed": "1", "fps": "16", "priority": "-2"}
    nulls = dict.fromkeys(set(COLUMNS) - {"prompt", *row})
    record, priority = texts.accept({"prompt": "a cat", **row, **nulls})
    assert (record.key, priority) == (texts.accept({**CAT, "fps": 16})[0].key, -2)


def test_one_seed_in_a_list_is_a_seed(texts):
    row = {"prompt": "a cat", **SMALL}
    assert texts.accept({**row, "seeds": [7]})[0].key == texts.accept({**row, "seed": 7})[0].key


# What is refused


def test_an_unknown_field_is_refused_with_a_hint(texts):
    assert problems(texts, {**CAT, "widht": 64}) == [("widht", "is not known: did you mean width?")]
    assert problems(texts, {**CAT, "zzz": 1}) == [
        ("zzz", "is not known: put what is only to be kept into tags")
    ]
    assert problems(texts, {**CAT, "__problem__": "x"})[0][0] == "__problem__"
    assert problems(texts, {**CAT, "": 1})[0][0] == ""
    ((field, _),) = problems(texts, {**CAT, "x" * 1000: 1})
    assert len(field) == 80


def test_all_problems_are_told_at_once(texts):
    found = problems(texts, {"prompt": " ", "steps": 0, "num_frames": 4, "seed": -1, "solver": "magic"})
    assert {field for field, _ in found} == {"prompt", "steps", "num_frames", "seed", "solver"}
    assert dict(found)["steps"] == "must be 1 to 1000, got 0"


def test_unknown_fields_and_wrong_media_are_told_with_the_rest(texts):
    found = problems(texts, {**CAT, "widht": 1, "image": "http://x/y.png", "steps": 0})
    assert {field for field, _ in found} == {"widht", "image", "steps"}


@pytest.mark.parametrize("row", [{}, {"seed": 1}, {"prompt": None}, {"id": "a", "tags": {}}])
def test_a_row_without_a_prompt_is_refused(texts, row):
    ((field, message),) = problems(texts, row)
    assert field == "prompt"
    assert "is required" in message


def test_several_seeds_are_several_requests(texts):
    ((field, message),) = problems(texts, {"prompt": "a", **SMALL, "seeds": [1, 2]})
    assert (field, message) == ("seeds", "makes 2 requests: send one each")


def test_the_error_names_fields_and_rules(texts):
    with pytest.raises(RefusedError, match=r"^steps must be 1 to 1000, got 0; num_frames must be 4n\+1"):
        texts.accept({**CAT, "steps": 0, "num_frames": 6})


BROKEN = {
    "no base64": "data:image/png;base64,%%%",
    "cut base64": data_uri(png())[:-3],
    "line ends": "data:image/png;base64,AAAA\nAAAA",
    "not ASCII": "data:image/png;base64,ÄÄÄÄ",
    "no comma": "data:image/png;base64",
    "plain": "data:text/plain,hello",
    "nothing": "data:",
}


@pytest.mark.parametrize("uri", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("allow_uris", [False, True])
def test_broken_base64_is_refused(texts, uri, allow_uris):
    ((field, message),) = problems(Reception(texts.resolver, allow_uris), {**CAT, "image": uri})
    assert field == "image"
    assert message.startswith("must be data:TYPE;base64,... with whole base64 behind the comma, got ")
    assert len(message) < 300


NO_IMAGES = {"empty": b"", "text": b"hello", "cut": png()[:20], "head": b"\x89PNG\r\n\x1a\n" + bytes(100)}


@pytest.mark.parametrize("content", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_is_refused(texts, content):
    ((field, message),) = problems(texts, {**CAT, "image": data_uri(content)})
    assert field == "image"
    assert "{bytes, path}" not in message, "which is nothing that the API takes"


def test_a_large_image_is_refused(texts, monkeypatch):
    content = png("green")
    monkeypatch.setitem(MAX_BYTES, "image", len(content) - 1)
    ((field, message),) = problems(texts, {**CAT, "image": data_uri(content)})
    assert field == "image"
    assert f"more than the {len(content) - 1} bytes" in message
    assert not texts.store.exists(f"inputs/{hashlib.sha256(content).hexdigest()}")


URIS = ["/etc/passwd", "cat.png", "file:///etc/passwd", "http://127.0.0.1:1/a.png", "s3://bucket/a.png", ""]
ODD = [*URIS, {"path": "/etc/passwd"}, {"bytes": "AAAA", "path": None}, 7, True, [], ["x"], {}]


@pytest.mark.parametrize("value", ODD, ids=str)
def test_media_that_do_not_come_along_are_refused(texts, value):
    ((field, message),) = problems(texts, {**CAT, "image": value})
    assert field == "image"
    assert message.startswith("must come along as data:TYPE;base64,... ")


@pytest.mark.parametrize("column", ["reference_images", "key_images"])
def test_lists_hide_nothing(reception, column):
    made, good = reception("vace-1.3b"), data_uri(png())
    for value in [*ODD, None]:
        ((field, message),) = problems(made, {**CAT, column: [good, value]})
        assert field == column
        assert message.startswith("must come along as data:TYPE;base64,... ")
    for value in [good, json.dumps(["/etc/passwd"]), {"path": "/etc/passwd"}, 7]:
        ((field, message),) = problems(made, {**CAT, column: value})
        assert (field, message[:15]) == (column, "must be a list,")


@pytest.mark.parametrize("value", [item for item in ODD if not isinstance(item, str) or not item], ids=str)
def test_uris_are_texts_where_they_are_allowed(reception, value):
    made = reception("vace-1.3b", allow_uris=True)
    for column, wrong in [("image", value), ("reference_images", [value])]:
        ((field, message),) = problems(made, {**CAT, column: wrong})
        assert field == column
        assert message.startswith("must be a URI, or data:TYPE;base64,...")


def test_allowed_uris_are_bound_by_the_rules_of_media(reception, tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "cat.png").write_bytes(png())
    (inside / "link.png").symlink_to(outside / "cat.png")
    rules = {"allow_schemes": ["file"], "allow_roots": [str(inside)]}
    made = reception("vace-1.3b", allow_uris=True, media=rules)
    record, _ = made.accept({**CAT, "image": str(inside / "cat.png")})
    assert record.key == made.accept({**CAT, "image": data_uri(png())})[0].key
    assert list(record.sources.values()) == [str(inside / "cat.png")]
    wrong = [outside / "cat.png", inside / "../out/cat.png", inside / "link.png", "s3://bucket/cat.png"]
    wrong += ["http://127.0.0.1:1/cat.png", "/dev/zero", f"file://{outside}/cat.png", inside / "none.png"]
    for uri in map(str, wrong):
        for column, value in [("image", uri), ("reference_images", [data_uri(png()), uri])]:
            ((field, message),) = problems(made, {**CAT, column: value})
            assert field == column
            assert uri in message


def test_a_store_that_fails_is_not_the_fault_of_the_row(reception):
    made = reception()
    (Path(made.store.url) / "inputs").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageError):
        made.accept({**CAT, "image": data_uri(png())})


def test_media_that_the_model_does_not_take_are_refused(texts):
    for column in sorted(set(MEDIA_COLUMNS) - {"image"}):
        content = data_uri(png())
        is_list = column in ("reference_images", "key_images")
        found = problems(texts, {**CAT, column: [content] if is_list else content})
        assert {field for field, _ in found} == {column}


# What nobody thought of


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


RIDDLES = {
    "a number in a list of seeds": {**CAT, "seeds": 7},
    "a huge number": {**CAT, "seed": 10**400, "fps": 10**400, "guidance": {"high": 10**400, "low": 1}},
    "the smallest number": {**CAT, "num_frames": -(2**63), "width": 2**63 - 1},
    "no number": {**CAT, "seed": math.nan, "fps": math.inf, "guidance": -math.inf},
    "no number in texts": {**CAT, "fps": "nan", "shift": "1e999", "width": "0x40"},
    "booleans": {**CAT, "steps": True, "prompt": False, "guidance": True},
    "lists": {**CAT, "steps": [1], "prompt": ["a"], "id": [1], "priority": []},
    "objects": {**CAT, "steps": {}, "prompt": {"a": 1}, "size": {"w": 1}},
    "a text of brackets": {**CAT, "key_frames": "[" * 100_000, "lora": "[" * 100_000},
    "deep tags as text": {**CAT, "steps": 0, "tags": '{"a":' * 5000 + "1" + "}" * 5000},
    "deep numbers": {**CAT, "guidance": nested(400), "seeds": nested(400)},
    "a row as in Python": {**CAT, "tags": [["a", 1]], "lora": [{"path": None, "weight": "x"}]},
}


@pytest.mark.parametrize("row", RIDDLES.values(), ids=RIDDLES)
@pytest.mark.parametrize("model", ["ti2v-5b", "vace-1.3b"])
def test_odd_rows_are_refused_with_words(reception, row, model):
    found = problems(reception(model), row)
    assert all(len(message) < 400 for _, message in found)


@pytest.mark.parametrize("depth", [100, 480, 900])
def test_deep_tags_are_kept_or_refused(texts, depth):
    try:
        record, _ = texts.accept({**CAT, "tags": nested(depth)})
    except RefusedError:
        return
    assert record.tags == nested(depth)
    assert Record.from_table(record.to_table()) == record


NUMBERS = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from([0, 1, 5, 64, 2**63, -(2**63)])
TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    ["64x64", "7", "", "[]", "{}", "t2v", "unipc", "data:,", data_uri(png()), "{\"high\": 1, \"low\": 2}"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.builds(
    lambda base, known, unknown: base | known | unknown,
    st.sampled_from([CAT, {}, {"image": data_uri(png()), **CAT}]),
    st.dictionaries(st.sampled_from(sorted(COLUMNS)), VALUES, max_size=3),
    st.just({}) | st.just({}) | st.dictionaries(TEXTS, VALUES, max_size=1),
)


@pytest.fixture(scope="module", params=["ti2v-5b", "vace-1.3b"])
def any_reception(reception, request):
    return reception(request.param)


@settings(
    max_examples=250,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(row=ROWS)
def test_whatever_the_json_it_is_taken_or_refused(any_reception, row):
    record, refused = None, None
    try:
        record, _ = any_reception.accept(row)
    except RefusedError as error:
        refused = {"message": str(error), "problems": error.problems}
    if record is None:
        assert refused
        assert refused["problems"]
        json.dumps(refused, ensure_ascii=False).encode()
    else:
        assert Record.from_table(record.to_table()) == record
