"""What tired or hostile users type: one clear message, the right exit code, no traceback, no row lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

CONFIG = """\
manifest: good.jsonl
output: {url: out}
model: {path: tiny}
engine: local
run: r
numerics: {dtype: float32}
defaults: {size: 64x64, num_frames: 5, steps: 2}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tiny):
    return tiny("t2v-1.3b")


@pytest.fixture
def here(checkpoint, tmp_path, monkeypatch):
    """A working directory with config.yaml, a manifest of one good row and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    write_rows("good.jsonl", [{"id": "good", "prompt": "a cat"}])
    Path("tiny").symlink_to(checkpoint)
    return tmp_path


@pytest.fixture
def run_cli(here, run_cli):
    """The command in the working directory of `here`."""
    return run_cli


def write_rows(name, rows):
    """JSONL: rows as dicts, or as lines already written."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    Path(name).write_text("\n".join(lines) + "\n")


def assert_refused(result, *words, code=1):
    """The exit code, and one message on stderr that has all `words`."""
    exit_code, _, err = result
    assert exit_code == code, err
    assert err.count("error:") == 1
    message = err[err.index("error:") :]
    assert [word for word in words if word not in message] == [], message


def committed_ids():
    metas = [json.loads(path.read_bytes()) for path in Path("out/clips").glob("*/*/meta.json")]
    assert all((Path("out") / meta["video"]["path"]).stat().st_size for meta in metas)
    return sorted(id_ for meta in metas for id_ in meta["ids"])


def failures():
    """id -> record of every failure."""
    records = [json.loads(path.read_bytes()) for path in Path("out/failures").glob("*.json")]
    return {id_: record for record in records for id_ in record["ids"]}


# The configuration file


def test_config_that_does_not_exist(run_cli):
    assert_refused(run_cli("plan", "none.yaml"), "configuration none.yaml does not exist", "name a YAML file")


def test_config_that_is_a_folder(run_cli):
    Path("dir.yaml").mkdir()
    assert_refused(run_cli("plan", "dir.yaml"), "dir.yaml cannot be read", "IsADirectory", "name a YAML file")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("encode.t5=tpu", ["encode.t5 must be one of", "tpu"]),
        ("encode.t5=gpu", ["encode.t5 is gpu", "pools.encode.resources={GPU: 1}", "encode.t5=cpu"]),
        ("encode.t5=fsdp", ["encode.t5 must be one of auto, cpu, gpu", "pools.encode.resources={GPU: 2}"]),
        ("denoise.offload=expert", ["denoise.offload must be one of none, sequential", "placement=swap"]),
        ("denoise.offload=all", ["denoise.offload must be one of none, sequential, got 'all'"]),
        ("pools.denoise.resources={GPU: 2}", ["pools.denoise.resources.GPU must be at most 1", "topology"]),
        ("pools.extend.resources={GPU: 2}", ["pools.extend.resources.GPU must be at most 1, got 2"]),
        ("pools.denoise.concurrency=2", ["pools.denoise.concurrency must be left out, got 2"]),
        ("pools.encode.concurrency=0", ["pools.encode.concurrency must be at least 1, got 0"]),
        ("ray.rows_ahead=2", ["ray.rows_ahead must be at least 3, got 2"]),
        ("cache.max_gib=-1", ["cache.max_gib must be at least 0, got -1"]),
        ("estimate.cpu_tflops=0", ["estimate.cpu_tflops must be above 0, got 0"]),
        ("estimate.encode_s=-1", ["estimate.encode_s must be at least 0, got -1"]),
    ],
)
def test_what_encoders_cannot_do(run_cli, key, words):
    assert_refused(run_cli("render", "config.yaml", key), *words)


def test_overrides_without_a_config(run_cli):
    assert_refused(run_cli("plan", "engine=local"), "configuration engine=local", "YAML file, then key=value")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"manifest: [a\nfoo: {", ["is not valid YAML", "line 1"]),
        (b"output:\n\turl: x\n", ["is not valid YAML", "line 2"]),
        (b"engine: ray\nengine: local\n", ["is not valid YAML", "duplicate key engine"]),
        (b"engine: ray\n---\nengine: local\n", ["is not valid YAML", "single document"]),
        (b"- a\n- b\n", ["must be a mapping", "got a list"]),
        (b"3\n", ["cannot be read", "name a YAML file"]),
        (b"hello\n", ["hello is not a known key", "known: manifest, output"]),
        (b"\xff\xfe\x00\x80", ["cannot be read", "UnicodeDecodeError"]),
        (b"", ["manifest, model.path, output.url must be set", "give manifest=..."]),
        (CONFIG.replace("manifest: good.jsonl", "").encode(), ["manifest must be set", "give manifest=..."]),
        (CONFIG.replace("url: out", "").encode(), ["output.url must be set"]),
        (CONFIG.replace("path: tiny", "").encode(), ["model.path must be set"]),
        (CONFIG.replace("{url: out}", "out").encode(), ["output must be a section", "url, got 'out'"]),
        (CONFIG.replace("{url: out}", "").encode(), ["output must be a section", "got None"]),
        (f"{CONFIG}pools: 3\n".encode(), ["pools must be a section with keys such as extend, got 3"]),
        (f"{CONFIG}3: 4\n".encode(), ["3 is not a known key"]),
    ],
)
def test_config_file(run_cli, content, words):
    Path("bad.yaml").write_bytes(content)
    assert_refused(run_cli("plan", "bad.yaml"), "bad.yaml", *words)
    assert not Path("out").exists()


# Keys and values; each is tried on the command line and must be named with its place


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("outptu.url=x", ["outptu is not a known key", "did you mean output?"]),
        ("Engine=local", ["did you mean engine?"]),
        ("defaults.stesp=3", ["defaults.stesp is not a known key", "did you mean defaults.steps?"]),
        ("pools.denoise.topology.ulyses=2", ["did you mean pools.denoise.topology.ulysses?"]),
        ("pools.all.gangs=2", ["pools.all is not a known key", "known: extend, encode, denoise"]),
        ("nonsense", ["'nonsense' must have the form key=value"]),
        ("=3", ["'=3' must have the form key=value"]),
        ("manifest=*.parquet", ["'manifest=*.parquet'", "needs quotes", "\"manifest='*.parquet'\""]),
        ("defaults.steps=[", ["'defaults.steps=['", "not valid YAML after the ="]),
        ("defaults.steps=abc", ["defaults.steps must be a whole number, got 'abc'"]),
        ("defaults.steps=1.5", ["defaults.steps must be a whole number, got 1.5"]),
        ("defaults.steps.x=3", ["defaults.steps must be a whole number, got {'x': 3}"]),
        ("defaults.steps=0", ["defaults.steps must be at least 1, got 0"]),
        ("defaults.steps=2000", ["defaults.steps must be 1 to 1000, got 2000"]),
        ("defaults.num_frames=80", ["defaults.num_frames must be 4n+1", "got 80"]),
        ("defaults.size=64by64", ["defaults.size must be WIDTHxHEIGHT such as 832x480, got '64by64'"]),
        ("defaults.size=65x64", ["defaults.size", "multiples of 16 pixels, got '65x64'"]),
        ("defaults.width=64", ["defaults.size '64x64' excludes defaults.width", "keep one way"]),
        ("defaults.solver=euler", ["defaults.solver must be one of unipc, dpm++, got 'euler'"]),
        ("defaults.guidance=strong", ["defaults.guidance must be a number or {high, low}", "'strong'"]),
        ("defaults.shift=.nan", ["defaults.shift must be a finite number, got nan"]),
        ("defaults.seed=-1", ["defaults.seed must be at least 0, got -1"]),
        ("defaults.seeds=3", ["defaults.seeds must be a list of whole numbers such as [0, 1], got 3"]),
        ("defaults.tags=[a]", ["defaults.tags must be a mapping", "got ['a']"]),
        ("defaults.task=i2v", ["defaults.task must be t2v", "got 'i2v'"]),
        ("defaults.prompt=a: b", ["defaults.prompt must be a text or a list of texts, got {'a': 'b'}"]),
        ("defaults.prompt=7", ["defaults.prompt must be a text or a list of texts, got 7", "needs quotes"]),
        ("defaults.prompt=[]", ["defaults.prompt must be a text or a list of texts, got []"]),
        ("defaults.prompt=[a, b]", ["defaults.prompt is a list", "good.jsonl", "manifest=null"]),
        ("defaults=3", ["defaults must be a section", "got 3"]),
        ("manifest=", ["manifest must be set"]),
        ("output.url=", ["output.url must be text, got None"]),
        ("output.url=' '", ["output.url must not be blank", "name a folder or a URL"]),
        ("output.url=s3:/bucket/x", ["output.url must have ://", "got 's3:/bucket/x'"]),
        ("output.url=nowhere://x", ["output.url nowhere://x cannot be opened", "use a folder or s3://"]),
        ("output.url=s3://me:secret@bucket/x", ["output.url holds a password", "leave it out"]),
        ("output.video.crf=99", ["output.video.crf must be 0 to 51, got 99"]),
        ("output.video.preset=fastest", ["output.video.preset must be one of", "got 'fastest'"]),
        ("output.save_latents=maybe", ["output.save_latents must be true or false, got 'maybe'"]),
        ("numerics.mode=offical", ["numerics.mode must be one of official, diffusers, got 'offical'"]),
        ("numerics.dtype=fp16", ["numerics.dtype must be one of bfloat16, float32, got 'fp16'"]),
        ("engine=slurm", ["engine must be one of ray, local, got 'slurm'"]),
        ("placement=left", ["placement must be one of auto, split", "got 'left'"]),
        ("on_invalid=ignore", ["on_invalid must be one of record, fail, got 'ignore'"]),
        ("run=../elsewhere", ["run must be a name of letters", "got '../elsewhere'"]),
        ("run=${nope}", ["run cannot be resolved", "'nope' not found"]),
        ("model.name=wan", ["model.name must be one of flf2v-14b, i2v-14b-480p", "got 'wan'"]),
        ("model.name=t2v-a14b", ["no transformer_2/ folder", "does not fit model t2v-a14b", "model.name"]),
        ("model.path=nowhere", ["model.path nowhere does not exist: name a checkpoint folder, a repository"]),
        ("model.path=config.yaml", ["model.path", "config.yaml is no local folder"]),
        ("pools.denoise.gangs=0", ["pools.denoise.gangs must be at least 1, got 0"]),
        ("pools.denoise.topology.cfg=3", ["pools.denoise.topology.cfg must be 1 or 2, got 3"]),
        ("pools.decode.resources={GPU: -1}", ["pools.decode.resources.GPU must be at least 0, got -1.0"]),
        ("pools.denoise.topology.ulysses=2", ["pools.denoise.topology has 2 ranks", "local has one process"]),
        ("sweep=3", ["sweep must be a mapping of columns to lists", "got 3"]),
        ("sweep.steps=3", ["sweep must be a mapping of columns to lists", "{'steps': 3}"]),
        ("sweep.stesps=[1]", ["sweep.stesps is not a column", "did you mean sweep.steps?"]),
        ("sweep.steps=[]", ["sweep.steps must be a list of at least one value"]),
        ("sweep.steps=[2,0]", ["sweep.steps must be 1 to 1000, got 0"]),
        ("sweep.steps=[two]", ["sweep.steps must be a whole number, got 'two'"]),
        ("sweep.size=[64x64,65x64]", ["sweep.size", "multiples of 16 pixels, got '65x64'"]),
    ],
)
def test_override(run_cli, override, words):
    assert_refused(run_cli("render", "config.yaml", override), "(command line)", *words)
    assert list(Path().glob("out/*/*")) == []


def test_value_in_the_file_is_placed_there(run_cli):
    Path("config.yaml").write_text(CONFIG.replace("steps: 2", "steps: 2000"))
    assert_refused(run_cli("plan", "config.yaml", "engine=local"), "got 2000", "(config.yaml)")


def test_ulysses_has_to_divide_the_heads(run_cli):
    result = run_cli("plan", "config.yaml", "engine=ray", "pools.denoise.topology.ulysses=3")
    assert_refused(result, "pools.denoise.topology.ulysses must divide the model's 4 heads, got 3")


# The command line itself


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["render", "config.yaml", "--dry-run"], "No such option: --dry-run"),
        (["plan", "config.yaml", "--jsn"], "--json"),
        (["render"], "Missing argument 'config'"),
        (["rendr", "config.yaml"], "Did you mean 'render'?"),
        (["manifest", "good.jsonl"], "Missing option '--output'"),
        (["tiny", "t2v-1.3b"], "Missing argument 'output'"),
    ],
)
def test_command_line(run_cli, arguments, words):
    code, _, err = run_cli(*arguments)
    assert (code, words in err, "Usage: " in err) == (1, True, True)


# The checkpoint


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def break_shard(folder):
    (folder / "vae/diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "a-1-of-2.safetensors"}}'
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), ["no model_index.json", "Diffusers layout"]),
        (lambda folder: shutil.rmtree(folder / "vae"), ["vae/config.json is missing"]),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), ["tokenizer/tokenizer.json is missing"]),
        (
            lambda folder: (folder / "tokenizer/tokenizer.json").unlink(),
            ["tokenizer/tokenizer.json is missing"],
        ),
        (break_shard, ["vae/a-1-of-2.safetensors is missing"]),
        (
            lambda folder: (folder / "transformer/diffusion_pytorch_model.safetensors").unlink(),
            ["transformer/*.safetensors is missing"],
        ),
        (
            lambda folder: (folder / "text_encoder/model.safetensors").write_text("version https://git-lfs"),
            ["text_encoder/model.safetensors (23 bytes) is no whole safetensors file"],
        ),
        (
            lambda folder: os.truncate(folder / "vae/diffusion_pytorch_model.safetensors", 5000),
            ["vae/diffusion_pytorch_model.safetensors (5000 bytes) is no whole safetensors file"],
        ),
        (
            lambda folder: (folder / "transformer/config.json").write_text("{ bro"),
            ["config.json is not JSON"],
        ),
        (lambda folder: (folder / "transformer/config.json").write_text("[]"), ["is not a JSON object"]),
        (
            lambda folder: edit_json(folder / "transformer/config.json", num_layers=None),
            ["has no usable num_layers"],
        ),
        (
            lambda folder: edit_json(folder / "model_index.json", _class_name="WanImageToVideoPipeline"),
            ["holds a WanImageToVideoPipeline", "this version renders t2v-1.3b, t2v-14b"],
        ),
        (
            lambda folder: edit_json(folder / "model_index.json", boundary_ratio=0.9),
            ["no transformer_2/ folder", "does not fit model t2v-a14b"],
        ),
    ],
)
def test_checkpoint(run_cli, checkpoint, damage, words):
    shutil.copytree(checkpoint, "broken")
    damage(Path("broken"))
    assert_refused(run_cli("plan", "config.yaml", "model.path=broken"), "model.path", *words)


def test_name_does_not_hide_what_a_checkpoint_is(run_cli, checkpoint):
    shutil.copytree(checkpoint, "other")
    edit_json(Path("other/model_index.json"), _class_name="WanImageToVideoPipeline")
    result = run_cli("plan", "config.yaml", "model.path=other", "model.name=t2v-1.3b")
    assert_refused(result, "model.path", "holds a WanImageToVideoPipeline", "this version renders")


def test_name_of_another_size(run_cli, checkpoint):
    shutil.copytree(checkpoint, "real")
    sizes = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
    edit_json(Path("real/transformer/config.json"), **sizes)
    result = run_cli("plan", "config.yaml", "model.path=real", "model.name=t2v-14b")
    assert_refused(result, "model.path", "has the sizes of t2v-1.3b, not of model t2v-14b", "model.name")


def test_two_experts_under_the_name_of_one(run_cli, tiny):
    result = run_cli("plan", "config.yaml", f"model.path={tiny('t2v-a14b')}", "model.name=t2v-1.3b")
    assert_refused(result, "has two experts", "does not fit model t2v-1.3b", "check model.name")


# The manifest as a whole


def parquet_bytes(**columns):
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.parquet", b"a cat\na dog\n", ["cannot be read", "is it really a .parquet file"]),
        ("m.parquet", parquet_bytes(prompt=["a"] * 999)[:-40], ["cannot be read", "really a .parquet file"]),
        ("m.parquet", parquet_bytes(prompt=pa.array([], pa.string())), ["is empty", "at least one row"]),
        ("m.parquet", b"", ["cannot be read", "0 bytes"]),
        ("m.jsonl", b"", ["is empty", "at least one row"]),
        ("m.csv", b"prompt\n", ["is empty", "at least one row"]),
        ("m.csv", "prompt\na\n".encode("utf-16"), ["cannot be read", "in UTF-8?"]),
        ("m.csv", "prompt\ncaf\u00e9\n".encode("latin-1"), ["cannot be read", "in UTF-8?"]),
        ("m.csv", b"prompt,prompt\na,b\n", ["more than one column prompt", "keep one"]),
        ("m.xlsx", b"PK", ["is none of .parquet, .jsonl", "save anything else as one of these"]),
        ("m.txt", b"a cat\n", ["is none of .parquet, .jsonl", "`wanray manifest` converts a .txt"]),
        ("m", b"a cat\n", ["is none of .parquet, .jsonl"]),
    ],
)
def test_manifest(run_cli, name, content, words):
    Path(name).write_bytes(content)
    assert_refused(run_cli("render", "config.yaml", f"manifest={name}"), f"{name} ", *words)
    assert committed_ids() == []


@pytest.mark.parametrize("column", ["text", "Prompt", "id;prompt"])
def test_manifest_without_prompts(run_cli, column):
    Path("m.csv").write_text(f"{column}\na\n")
    result = run_cli("plan", "config.yaml", "manifest=m.csv")
    assert_refused(result, "no column prompt", f"only {column}", "rename one or set defaults.prompt")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("none.parquet", ["manifest none.parquet does not exist", "give a file, a folder or a glob"]),
        ("shots/*.parquet", ["manifest shots/*.parquet does not exist"]),
        ("folder", ["manifest folder is an empty folder: put .parquet"]),
        ("mixed", ["manifest mixed mixes .csv, .jsonl files", "use a glob"]),
        ("nowhere://m.parquet", ["nowhere://m.parquet cannot be read", "check the address"]),
    ],
)
def test_manifest_address(run_cli, url, words):
    Path("folder").mkdir()
    Path("mixed").mkdir()
    Path("mixed/a.csv").write_text("prompt\na\n")
    write_rows("mixed/b.jsonl", [{"prompt": "a"}])
    assert_refused(run_cli("plan", "config.yaml", f"manifest={url}"), *words)


# Rows

BAD_ROWS = [
    ({"num_frames": 6}, "column num_frames: must be 4n+1 (5, 9, ..., 81), got 6"),
    ({"num_frames": 0}, "column num_frames: must be 1 to 4093, got 0"),
    ({"size": "72x64"}, "column size: must have sides that are multiples of 16 pixels, got '72x64'"),
    ({"size": "64 by 64"}, "column size: must be WIDTHxHEIGHT such as 832x480, got '64 by 64'"),
    ({"size": "64x64", "width": 64}, "column size: excludes width in the same row"),
    ({"width": 10}, "column width: must be 16 to 8192 pixels, got 10"),
    ({"height": 64.5}, "column height: must be a whole number, got 64.5"),
    ({"steps": 0}, "column steps: must be 1 to 1000, got 0"),
    ({"steps": 2000}, "column steps: must be 1 to 1000, got 2000"),
    ({"steps": "abc"}, "column steps: must be a whole number, got 'abc'"),
    ({"steps": True}, "column steps: must be a whole number, got True"),
    ({"prompt": None}, "column prompt: is required: give it in the row or as defaults.prompt"),
    ({"prompt": " \t "}, "column prompt: must not be blank"),
    ({"prompt": ["a", "b"]}, "column prompt: must be UTF-8 text, got ['a', 'b']"),
    ({"prompt": "x" * 20_001}, "column prompt: must have at most 20,000 characters, got 20001"),
    ({"solver": "euler"}, "column solver: must be one of unipc, dpm++, got 'euler'"),
    ({"seed": -1}, "column seed: must be 0 to 9223372036854775807, got -1"),
    ({"seed": 2**70}, "column seed: must be at most 9223372036854775807"),
    ({"seed": 1, "seeds": [1, 2]}, "column seeds: excludes seed in the same row: keep one of them"),
    ({"seeds": []}, "column seeds: must hold at least one seed"),
    ({"seeds": "1,2"}, "column seeds: must be a list of whole numbers such as [0, 1], got '1,2'"),
    ({"shift": "nan"}, "column shift: must be a finite number, got 'nan'"),
    ({"shift": 0}, "column shift: must be 0.01 to 100, got 0.0"),
    ({"guidance": "strong"}, "column guidance: must be a number or {high, low} with two numbers"),
    ({"guidance": {"high": 3}}, "column guidance: must be a number or {high, low} with two numbers"),
    ({"fps": 0}, "column fps: must be 0.1 to 240, got 0.0"),
    ({"priority": 10**9}, "column priority: must be -1000000 to 1000000, got 1000000000"),
    ({"tags": "outdoor"}, "column tags: must be an object such as {'scene': 'beach'}, got 'outdoor'"),
    ({"task": "i2v"}, "column task: must be t2v or t2i, a task of model t2v-1.3b, got 'i2v'"),
    ({"lora": [{"path": "x.safetensors"}]}, "column lora: model t2v-1.3b takes no lora: leave it out"),
    ({"image": "none.png"}, "column image: model t2v-1.3b takes no image: leave it out, got 'none.png'"),
]
"""What a row says besides its id and a prompt, and what its failure says."""

BROKEN_LINES = [
    ('{"prompt": "cut', " of "),
    ('{"prompt": "nan", "shift": NaN}', "NaN is not a JSON value"),
    ('["a cat"]', "is not a JSON object"),
    ('"a cat"', "is not a JSON object"),
    ("{}", "column prompt: is required"),
    ("{}", "column prompt: is required"),
    ('{"id": "a\\u0000b", "prompt": "a cat"}', "column id: must have no control characters"),
    ('{"id": "", "prompt": "a cat"}', "column id: must not be empty"),
    ('{"id": "\\ud800", "prompt": "a cat"}', "is not JSON"),
]


def test_bad_rows_fail_and_the_others_render(run_cli):
    rows = [{"id": f"bad-{number}", "prompt": "a cat"} | row for number, (row, _) in enumerate(BAD_ROWS)]
    rows += [line for line, _ in BROKEN_LINES]
    rows.insert(3, {"id": "good", "prompt": "a cat"})
    rows += [{"id": "twice", "prompt": "a bird"}, {"id": "twice", "prompt": "a horse"}]
    write_rows("rows.jsonl", rows)
    code, out, _ = run_cli("render", "config.yaml", "manifest=rows.jsonl")

    records = failures()
    expected = {f"bad-{number}": words for number, (_, words) in enumerate(BAD_ROWS)}
    first = len(BAD_ROWS) + 1  # the good row stands among them
    for row, (line, words) in enumerate(BROKEN_LINES, start=first):
        named = "id" in line and "ud800" not in line
        expected[json.loads(line)["id"] if named else f"row-{row:07d}"] = words
    assert {
        id_: records[id_]["message"] for id_ in expected if expected[id_] not in records[id_]["message"]
    } == {}
    assert "is already used by row" in records["twice"]["message"]
    assert set(records) == {*expected, "twice"}
    assert {(record["class"], record["stage"]) for record in records.values()} == {("input", "plan")}
    assert all(f"row {number} " in records[f"bad-{number}"]["message"] for number in range(3))
    assert f"line {first + 1} of" in records[f"row-{first:07d}"]["message"]
    assert committed_ids() == ["good", "twice"]
    assert code == 2
    assert f"2 clips committed, 0 were committed before, {len(records)} failed ({len(records)} input)" in out


def test_csv_row_of_another_length(run_cli):
    Path("rows.csv").write_text("id,prompt,steps\nshort,a cat\nlong,a cat, running,2\ngood,a cat,2\n")
    code, _, _ = run_cli("render", "config.yaml", "manifest=rows.csv")
    assert (code, committed_ids()) == (2, ["good"])
    messages = sorted(record["message"] for record in failures().values())
    assert "row 2 of" in messages[0]
    assert "has 2 values for 3 columns: quote what holds a comma, got 'short,a cat'" in messages[0]
    assert "row 3 of" in messages[1]
    assert {record["class"] for record in failures().values()} == {"input"}


def test_columns_of_wrong_types(run_cli):
    columns = {"id": ["a", "b", "good"], "prompt": ["a cat"] * 3, "steps": ["abc", "-2", "2"]}
    Path("rows.parquet").write_bytes(parquet_bytes(**columns, num_frames=[5.0, 5.0, 5.0]))
    code, _, _ = run_cli("render", "config.yaml", "manifest=rows.parquet")
    assert (code, committed_ids(), sorted(failures())) == (2, ["good"], ["a", "b"])
    assert "column steps: must be a whole number, got 'abc'" in failures()["a"]["message"]


def test_nothing_but_bad_rows(run_cli):
    write_rows("rows.jsonl", [{"prompt": None}, {"prompt": None}])
    code, out, _ = run_cli("render", "config.yaml", "manifest=rows.jsonl")
    assert (code, committed_ids(), sorted(failures())) == (2, [], ["row-0000000", "row-0000001"])
    assert "0 clips committed" in out


def test_unknown_column_becomes_a_tag(run_cli):
    write_rows("rows.jsonl", [{"id": "a", "prompt": "a cat", "mood": "calm"}, {"id": "b", "prompt": "a dog"}])
    code, _, err = run_cli("render", "config.yaml", "manifest=rows.jsonl")
    assert (code, committed_ids()) == (0, ["a", "b"])
    assert err.count("mood") == 1
    assert "manifest columns mood are unknown: carried along as tags" in err
    metas = [path.read_text() for path in Path("out/clips").glob("*/*/meta.json")]
    assert sum('"mood": "calm"' in meta for meta in metas) == 1


def test_on_invalid_fail(run_cli):
    write_rows("rows.jsonl", [{"prompt": "a cat"}, {"id": "x", "prompt": "a cat", "steps": 0}])
    result = run_cli("render", "config.yaml", "manifest=rows.jsonl", "on_invalid=fail")
    assert_refused(result, "1 of 2 rows are invalid", "on_invalid is fail", 'row 1 (id "x"), column steps')
    assert (committed_ids(), failures()) == ([], {})


# The output


def test_output_below_a_file(run_cli):
    result = run_cli("render", "config.yaml", "output.url=config.yaml/out")
    assert_refused(result, "output.url must be a folder to write to", "config.yaml/out")


# wanray manifest, wanray tiny


@pytest.mark.parametrize(
    ("source", "target", "code", "words"),
    [
        ("none.txt", "m.parquet", 1, ["manifest none.txt does not exist", "check the path"]),
        ("empty.txt", "m.parquet", 1, ["manifest empty.txt is empty", "at least one prompt"]),
        ("latin.txt", "m.parquet", 1, ["manifest latin.txt cannot be read", "in UTF-8?"]),
        ("bad.jsonl", "m.parquet", 1, ["bad.jsonl has 2 problems", "nothing was written", "column steps"]),
        ("good.jsonl", "m.csv", 1, ["manifest m.csv would be Parquet", "end with .parquet"]),
        ("good.jsonl", "folder.parquet", 1, ["folder.parquet is a folder: name the file to write"]),
        ("good.jsonl", "nowhere://m.parquet", 1, ["nowhere://m.parquet cannot be written"]),
        ("good.jsonl", "good.jsonl/m.parquet", 3, ["good.jsonl/m.parquet cannot be written", "your rights"]),
    ],
)
def test_wanray_manifest(run_cli, source, target, code, words):
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("folder.parquet").mkdir()
    write_rows("bad.jsonl", [{"prompt": "a", "steps": 0}, {"prompt": " "}])
    before = sorted(Path().rglob("*"))
    assert_refused(run_cli("manifest", source, "-o", target), *words, code=code)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("model", "folder", "words"),
    [
        ("t2v1.3b", "new", ["'t2v1.3b' is unknown", "use one of flf2v-14b"]),
        ("t2v-1.3b", "full", ["full is not empty and no checkpoint", "name a new folder"]),
        ("t2v-1.3b", "config.yaml", ["config.yaml cannot be written", "name a new folder"]),
    ],
)
def test_wanray_tiny(run_cli, model, folder, words):
    Path("full").mkdir()
    Path("full/mine").touch()
    before = sorted(Path().rglob("*"))
    assert_refused(run_cli("tiny", model, folder), *words)
    assert sorted(Path().rglob("*")) == before


# For real


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "config.yaml", "defaults.steps=0"], 1, "error: defaults.steps must be at least 1, got 0"),
        (
            ["render", "config.yaml", "output.url=config.yaml/out"],
            1,
            "error: output.url must be a folder to write to",
        ),
        (["render", "config.yaml", "manifest=bad.jsonl"], 2, ""),
        (["render", "config.yaml", "--dry-run"], 1, "No such option"),
    ],
)
def test_installed_command(here, arguments, code, words):
    write_rows("bad.jsonl", [{"prompt": "a", "steps": 0}])
    command = [Path(sys.executable).with_name("wanray"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
