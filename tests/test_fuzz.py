"""What nobody thought of: 500 generated manifests, configs and command lines, through `wanray` itself.

Whatever they hold, the command ends soon, without a traceback and with an exit code of `wanray.errors`; wrong
use is told in one line. Examples live in a folder of their own: free text has no slash, the address of a file
is one of a list, and connections are refused.
"""

import contextlib
import csv
import io
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints
from unittest import mock

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from wanray import cli
from wanray.config.schema import VIDEO_CODECS, RenderConfig
from wanray.errors import ExitCode
from wanray.manifest.columns import COLUMNS, MEDIA_COLUMNS
from wanray.registry import MODELS

CONFIG: dict[str, Any] = {
    "manifest": "good.jsonl",
    "output": {"url": "out"},
    "model": {"path": "tiny"},
    "engine": "local",
    "run": "r",
    "numerics": {"dtype": "float32"},
    "defaults": {"size": "64x48", "num_frames": 5, "steps": 1},
}
GOOD_ROWS = [{"id": "cat", "prompt": "a cat"}, {"id": "dog", "prompt": "a dog"}]


pytestmark = pytest.mark.timeout(600)


def examples(number: int) -> settings:
    """The same `number` examples at every run; each may take a while, on a machine that does much else."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,  # the timeout of the test bounds them all; machines are busy
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# Running the command


@pytest.fixture(scope="module")
def checkpoints(tiny: Callable[[str], Path]) -> dict[str, Path]:
    """Tiny checkpoints by the name of their model; what is slow once is over before examples are timed."""
    folders = {name: tiny(name) for name in ("t2v-1.3b", "vace-1.3b")}
    with workspace(folders["t2v-1.3b"]):
        assert run("plan", "config.yaml")[0] == ExitCode.DONE
    return folders


@contextlib.contextmanager
def workspace(checkpoint: Path) -> Iterator[Path]:
    """A working directory with a config, a manifest and a copy of `checkpoint`, and nothing left outside."""
    with tempfile.TemporaryDirectory() as top:
        home = Path(top).resolve() / "a" / "b"
        shutil.copytree(checkpoint, home / "tiny")
        (home / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        write_jsonl(home / "good.jsonl", GOOD_ROWS)
        places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "COLUMNS": "200"}
        with contextlib.chdir(home), mock.patch.dict(os.environ, places):
            yield home
        assert [*Path(top).iterdir(), *home.parent.iterdir()] == [home.parent, home]


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `wanray`, whose promises are checked."""
    # as the streams of a terminal treat what is no UTF-8
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with (
        mock.patch.object(sys, "argv", ["wanray", *arguments]),
        mock.patch.object(logging.root, "handlers", []),
        mock.patch.object(socket.socket, "connect", side_effect=AssertionError("nobody is to be asked")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    code = int(ended.value.code or 0)
    check_ending(arguments, code, *texts)
    return code, *texts


def check_ending(arguments: tuple[str, ...], code: int, out: str, err: str) -> None:
    """The exit code is one of the table, and says what the texts say; no store here is out of reach."""
    told = f"exit code {code} of {arguments}:\n{out}\n{err}"
    assert "Traceback" not in out + err, told
    assert code in (ExitCode.DONE, ExitCode.USAGE, ExitCode.FAILURES), told
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if code != ExitCode.USAGE:
        assert not errors, told
    elif "Usage: " not in err and arguments[0] != "doctor":  # typer has a page of its own
        assert len(errors) == 1, told
        assert any(word in errors[0] for word in words_of(arguments)), told


def words_of(arguments: tuple[str, ...]) -> set[str]:
    """What a message may name of the input: arguments, keys and values of overrides, the config's keys."""
    words = {*arguments, *(part for argument in arguments for part in argument.split("=", 1))}
    words = {word or "." for word in words}
    return {*words, *(repr(word)[1:-1] for word in words), *CONFIG, "command line"} - {arguments[0]}


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".cache" not in path.parts}


def plan_writes_nothing(*arguments: str) -> None:
    before = files(Path())
    run("plan", "config.yaml", *arguments)
    assert files(Path()) == before


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# Texts, numbers and trees

SLASHLESS = st.characters(codec="utf-8", exclude_characters="/\\")
TEXTS = st.one_of(
    st.text(SLASHLESS, max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "out",
            "tiny",
            "good.jsonl",
            "config.yaml",
            "../up",
            "a/../../b",
            "~",
            "~nobody/x",
            "a\0b",
            ".",
        ]
    ),
    st.sampled_from(
        ["${oc.env:HOME}", "${oc.env:NOPE}", "${a.b}", "${manifest}", "${defaults}", "${", "${run}", "???"]
    ),
    st.sampled_from(
        [
            "file:///none",
            "file:good.jsonl",
            "memory://x",
            "nowhere://x",
            "data:,x",
            "a::b",
            "zip://a::b",
            "s3:x",
        ]
    ),
    st.sampled_from(
        [
            "nan",
            "-inf",
            "1e999",
            "64x48",
            "0x0",
            "\u0663",
            "\u202e",
            "\x1b[2J",
            "x" * 300,
            "a\nerror: b",
            "{}",
        ]
    ),
    st.sampled_from(
        ["auto", "local", "t2v", "unipc", "mp4", "h264", "fail", "diffusers", "both", "cat", "*.jsonl"]
    ),
)
INTEGERS = st.integers(-3, 100) | st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400])
NUMBERS = INTEGERS | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS


TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
VALUES = SCALARS | TREES


def config_types(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, type) of every key, sections included."""
    for name, hint in get_type_hints(schema).items():
        yield f"{prefix}{name}", hint
        if is_dataclass(hint):
            yield from config_types(hint, f"{prefix}{name}.")


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values that OmegaConf takes for a key of that type, in range or not; anything where all may stand."""
    scalars = {bool: st.booleans(), int: INTEGERS, float: NUMBERS, str: TEXTS, type(None): st.none()}
    if hint in scalars:
        return scalars[hint]
    if get_origin(hint) is list:
        return st.lists(of_type(get_args(hint)[0]), max_size=3)
    if get_origin(hint) is dict:
        names = TEXTS | st.sampled_from(["GPU", "CPU", *COLUMNS])
        return st.dictionaries(names, of_type(get_args(hint)[1]), max_size=3)
    return st.one_of([of_type(part) for part in get_args(hint)]) if get_args(hint) else VALUES


TYPES = dict(config_types(RenderConfig))
KNOWN = st.sampled_from(list(TYPES)).flatmap(
    lambda key: st.tuples(st.just(key), st.one_of(of_type(TYPES[key]), of_type(TYPES[key]), VALUES))
)
CHANGES = st.lists(st.one_of(KNOWN, KNOWN, KNOWN, st.tuples(TEXTS, VALUES)), min_size=1, max_size=3)


def changed(changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """The working config with other values; sections come and go with what is set below them."""
    tree = json.loads(json.dumps(CONFIG))
    for key, value in changes:
        *parents, name = key.split(".")
        section = tree
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[name] = value
    return tree


BROKEN_YAML = st.one_of(
    st.sampled_from(
        ["0b_", "0x_", "._", "1:99:99", "2001-99-99", "*x", "&a [*a]", "|", "%", "!x y", "{<<: 3}"]
    ),
    st.sampled_from(["!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a}"]),
    st.sampled_from(["{a: 1, a: 2}", "{[a]: b}", "{? {a: b} : c}", "!!python/object/apply:os.system [id]"]),
    st.sampled_from(["[" * 2000, "9" * 5000, '"\\ud800"', "\ufeff", "\u2028"]),
)
YAML_TEXTS = st.one_of(
    CHANGES.map(changed).map(lambda tree: yaml.safe_dump(tree, allow_unicode=True)),
    st.builds(
        lambda key, value: f"{yaml.safe_dump(CONFIG)}{key}: {value}\n",
        st.sampled_from(["sweep", "x", "estimate", "placement"]),
        BROKEN_YAML,
    ),
    TREES.map(yaml.safe_dump),
)


@given(text=YAML_TEXTS)
@examples(45)
def test_config_files(text: str, checkpoints: dict[str, Path]) -> None:
    with workspace(checkpoints["t2v-1.3b"]):
        Path("config.yaml").write_text(text, "utf-8", "surrogatepass")
        plan_writes_nothing()


OVERRIDES = st.one_of(
    KNOWN.map(lambda item: f"{item[0]}={json.dumps(item[1])}"),
    KNOWN.map(lambda item: f"{item[0]}={item[1]}"),
    st.builds(lambda key, value: f"{key}={value}", st.sampled_from(list(TYPES)) | TEXTS, TEXTS | BROKEN_YAML),
    TEXTS,
).map(lambda text: text.replace("\0", "").lstrip("-"))  # no shell passes a NUL


@given(overrides=st.lists(OVERRIDES, min_size=1, max_size=3))
@examples(40)
def test_overrides(overrides: list[str], checkpoints: dict[str, Path]) -> None:
    with workspace(checkpoints["t2v-1.3b"]):
        plan_writes_nothing(*overrides)


# Manifests


def png(width: int = 32, height: int = 48) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


CONTENTS = st.sampled_from([png(), png()[:60], png(1, 900), b"GIF89a", b"\0" * 9, b""]) | st.binary(
    max_size=20
)
URIS = st.one_of(
    st.sampled_from(
        ["a.png", "cut.png", "a.png?x#y", "file:a.png", ".", "none.png", "tiny", "~/a.png", "a.png\0", ""]
    ),
    st.sampled_from(
        ["://", "x://", "file://a.png", "zip://a::b", "simplecache::file://a.png", "ftp://u:p@h"]
    ),
    st.sampled_from(["http://[::1", "data:image", "\u00e9" * 300]),
)
TEXT_MEDIA = URIS | st.fixed_dictionaries({}, optional={"path": URIS | SCALARS, "bytes": SCALARS})
NAMES = st.sampled_from([*COLUMNS, "prompt", "id", "mood", "__problem__", "key", "row"]) | TEXTS
DEEP = st.integers(1, 4000).map(
    lambda depth: f'{{"prompt": "a", "tags": {{"x": {"[" * depth}{"]" * depth}}}}}'
)


def cell(name: str) -> st.SearchStrategy[Any]:
    """A value for that column: of the kind that belongs there, or anything."""
    if name in MEDIA_COLUMNS:
        return TEXT_MEDIA | st.lists(TEXT_MEDIA, max_size=2) | VALUES
    return {"prompt": st.just("a cat") | TEXTS, "id": TEXTS | INTEGERS}.get(name, VALUES)


CELLS = NAMES.flatmap(lambda name: st.tuples(st.just(name), cell(name)))
ROWS = (
    st.lists(CELLS, max_size=4)
    .map(dict)
    .flatmap(lambda row: st.sampled_from([row, {"prompt": "a cat"} | row, {"prompt": "a cat"} | row]))
)
LINES = st.one_of(
    ROWS.map(json.dumps).map(str.encode),
    ROWS.map(json.dumps).map(str.encode),
    ROWS.map(lambda row: json.dumps(row, ensure_ascii=False)[:-2].encode()),
    st.binary(max_size=30),
    DEEP.map(str.encode),
    st.sampled_from(
        [b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", b'{"id": "\\ud800"}', b"\xff\xfe{}", b"[]"]
    ),
)
CSV_CELLS = st.one_of(TEXTS, NUMBERS.map(str), VALUES.map(json.dumps), URIS)


def with_media(home: Path) -> None:
    """What URIs of the examples name."""
    (home / "a.png").write_bytes(png())
    (home / "cut.png").write_bytes(png()[:60])


def plan_manifest(name: str, content: bytes, checkpoint: Path) -> None:
    with workspace(checkpoint) as home:
        with_media(home)
        Path(name).write_bytes(content)
        plan_writes_nothing(f"manifest={name}")
        run("manifest", name, "-o", "converted.parquet")


@given(lines=st.lists(LINES, max_size=4), model=st.sampled_from(["t2v-1.3b", "vace-1.3b"]))
@examples(40)
def test_jsonl(lines: list[bytes], model: str, checkpoints: dict[str, Path]) -> None:
    plan_manifest("m.jsonl", b"\n".join(lines), checkpoints[model])


# Arrow cannot decode some torn rows for the reader's handler; the manifest is refused all the same
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(
    header=st.lists(NAMES, min_size=1, max_size=4),
    rows=st.lists(st.lists(CSV_CELLS, max_size=4), max_size=4),
    tail=st.binary(max_size=8) | st.just(b""),
    model=st.sampled_from(["t2v-1.3b", "vace-1.3b"]),
)
@examples(25)
def test_csv(
    header: list[str], rows: list[list[str]], tail: bytes, model: str, checkpoints: dict[str, Path]
) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([header, *rows])
    plan_manifest("m.csv", file.getvalue().encode() + tail, checkpoints[model])


INT64 = st.integers(-(2**63), 2**63 - 1)
STRUCTS = [
    (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"bytes": CONTENTS, "path": URIS}),
    (
        pa.struct([("high", pa.float32()), ("low", pa.int8())]),
        {"high": st.floats(width=32), "low": st.just(3)},
    ),
    (pa.struct([("path", pa.large_string())]), {"path": URIS}),
]
ARROW: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXTS | URIS),
    (pa.large_string(), TEXTS),
    (pa.binary(), CONTENTS),
    (pa.int64(), INT64),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
    (pa.null(), st.none()),
    (pa.decimal128(38, 3), st.decimals(-(10**30), 10**30, places=3) | st.just(Decimal(5))),
    (pa.timestamp("us"), st.datetimes(datetime(1, 1, 2))),
    (pa.date32(), st.dates(date(1, 1, 2))),
    (pa.duration("s"), st.timedeltas()),
    (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    (pa.list_(pa.int64()), st.lists(st.none() | INT64, max_size=3)),
    (pa.list_(pa.string()), st.lists(URIS, max_size=3)),
    (pa.list_(STRUCTS[0][0]), st.lists(st.fixed_dictionaries(STRUCTS[0][1]), max_size=2)),
    (pa.map_(pa.string(), pa.int64()), st.dictionaries(TEXTS, INT64, max_size=2).map(lambda d: [*d.items()])),
    *((type_, st.fixed_dictionaries({}, optional=fields)) for type_, fields in STRUCTS),
]


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    """A table of columns of any types, whole or cut off."""
    num_rows, columns = draw(st.integers(0, 3)), {}
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        type_, values = draw(st.sampled_from(ARROW))
        column = draw(st.lists(st.none() | values, min_size=num_rows, max_size=num_rows))
        columns[name] = pa.array(column, type_)
    if draw(st.booleans()):
        columns["prompt"] = pa.array(["a cat"] * num_rows)
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    content = sink.getvalue().to_pybytes()
    return content[: -draw(st.integers(1, len(content)))] if draw(st.integers(0, 9)) == 9 else content


@given(content=parquet_files(), model=st.sampled_from(["t2v-1.3b", "vace-1.3b", "vace-1.3b"]))
@examples(40)
def test_parquet(content: bytes, model: str, checkpoints: dict[str, Path]) -> None:
    plan_manifest("m.parquet", content, checkpoints[model])


# Rendering

PROMPTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
RENDERED = st.fixed_dictionaries(
    {"prompt": PROMPTS},
    optional={
        "negative_prompt": PROMPTS,
        "seed": INTEGERS,
        "guidance": st.floats(-1, 30) | st.fixed_dictionaries({"high": NUMBERS, "low": NUMBERS}),
        "shift": st.floats(0, 100),
        "fps": st.floats(0.1, 240),
        "solver": st.sampled_from(["unipc", "dpm++", "euler"]),
        "task": st.sampled_from(["t2v", "t2i", "i2v"]),
        "steps": st.integers(0, 2),
        "num_frames": st.sampled_from([1, 4, 5]),
        "tags": st.dictionaries(PROMPTS, SCALARS, max_size=2),
    },
)


@given(rows=st.lists(RENDERED, min_size=1, max_size=2), format_=st.sampled_from(list(VIDEO_CODECS)))
@examples(10)
def test_renders_lose_no_row(rows: list[dict[str, Any]], format_: str, checkpoints: dict[str, Path]) -> None:
    with workspace(checkpoints["t2v-1.3b"]) as home:
        write_jsonl(home / "m.jsonl", [row | {"id": f"r{number}"} for number, row in enumerate(rows)])
        code, _, _ = run("render", "config.yaml", "manifest=m.jsonl", f"output.video.format={format_}")
        metas = [json.loads(path.read_bytes()) for path in home.glob("out/clips/*/*/meta.json")]
        failures = [json.loads(path.read_bytes()) for path in home.glob("out/failures/*.json")]
        told = [id_ for record in metas + failures for id_ in record["ids"]]
        assert sorted(told) == [f"r{number}" for number in range(len(rows))]
        assert code == (ExitCode.FAILURES if failures else ExitCode.DONE)
        assert run("verify", "out")[0] == ExitCode.DONE


# Command lines, over an output that may be damaged


@pytest.fixture(scope="module")
def rendered(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with two clips and a failure."""
    kept = tmp_path_factory.mktemp("rendered")
    with workspace(checkpoints["t2v-1.3b"]) as home:
        write_jsonl(home / "good.jsonl", [*GOOD_ROWS, {"id": "bad", "prompt": ""}])
        assert run("render", "config.yaml")[0] == ExitCode.FAILURES
        assert run("index", "out")[0] == ExitCode.DONE
        shutil.copytree("out", kept / "out")
    return kept / "out"


COUNTS = NUMBERS.map(str) | TEXTS.map(lambda text: text.replace("\0", ""))
WORDS = TEXTS.map(lambda text: text.replace("\0", "")) | st.just("\udc80")
OUTPUTS = (
    st.sampled_from(["out", "out", "out", "out", "./out", "out/clips", "file://none", "memory://x"]) | WORDS
)
ONLY = st.tuples(st.just("--only"), st.sampled_from(["cat", "bad", "nobody", "0" * 64]) | WORDS)
CHOICES = st.lists(ONLY | st.just(("--retry-failed",)), max_size=3).map(lambda given: sum(given, ()))
HARMLESS = st.sampled_from(
    [
        "run=s",
        "run=",
        "run=..",
        "defaults.steps=0",
        "on_invalid=fail",
        "numerics.mode=diffusers",
        "x",
        "claim=true",
    ]
)
JSON_OR_NOT = st.sampled_from([(), ("--json",), ("--nope",)])


def command(*parts: Any) -> st.SearchStrategy[tuple[str, ...]]:
    """Parts are words, strategies of words, or strategies of tuples of words."""
    strategies = [st.just((part,)) if isinstance(part, str) else part for part in parts]
    return st.tuples(*strategies).map(
        lambda drawn: tuple(word for part in drawn for word in ((part,) if isinstance(part, str) else part))
    )


COMMANDS = st.one_of(
    command("status", OUTPUTS, JSON_OR_NOT),
    command("verify", OUTPUTS, st.sampled_from([(), ("--fast",), ("--repair",), ("--repair", "--fast")])),
    command("verify", OUTPUTS, "--sample", COUNTS),
    command("index", OUTPUTS),
    command("gc", OUTPUTS, st.sampled_from([(), ("--dry-run",)])),
    command("gc", OUTPUTS, "--older-than-days", COUNTS),
    command("models", st.sampled_from([*MODELS]) | WORDS, JSON_OR_NOT),
    command(
        "manifest", st.sampled_from(["good.jsonl", "config.yaml", "tiny", "m.txt"]) | WORDS, "-o", "m.parquet"
    ),
    command("manifest", "good.jsonl", "-o", st.sampled_from(["out", "out.parquet", "m.csv"])),
    command("plan", WORDS, CHOICES, JSON_OR_NOT),
    command("plan", "config.yaml", CHOICES, JSON_OR_NOT),
    command("render", "config.yaml", CHOICES, HARMLESS, "engine=local", "output.url=out"),
    st.lists(WORDS, max_size=3).map(tuple).filter(bool),
)
DAMAGE = st.sampled_from([b"", b"{", b"[]", b"null", b'{"key": 3}', b"\xff\0", None])


@given(arguments=COMMANDS, damages=st.lists(st.tuples(st.integers(0, 99), DAMAGE), max_size=2))
@examples(55)
def test_command_lines(
    arguments: tuple[str, ...],
    damages: list[tuple[int, bytes | None]],
    checkpoints: dict[str, Path],
    rendered: Path,
) -> None:
    with workspace(checkpoints["t2v-1.3b"]) as home:
        shutil.copytree(rendered, home / "out")
        (home / "m.txt").write_text("a cat\n\n")
        present = sorted(path for path in (home / "out").rglob("*") if path.is_file())
        for number, content in damages:
            path = present[number % len(present)]
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        run(*arguments)
