"""Manifests whose authors want out: of the output folder, of their line in the log, of the text they are."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from wanray.config import MediaConfig
from wanray.manifest.columns import normalise_table
from wanray.manifest.media import MediaOpener, absolute_roots

CONFIG = """\
manifest: rows.jsonl
output: {url: out}
model: {path: tiny}
engine: local
run: r
numerics: {dtype: float32}
defaults: {size: 64x64, num_frames: 1, steps: 1}
"""

TEXTS = [
    "../../../../escaped",
    "/escaped",
    "a/../../../b",
    "nul\0nul",
    "line\nerror: all is lost\r\n12:00:00 forged",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "${oc.env:HOME}",
    "{key} {0} %s %n $(id) `id`",
    "x" * 2**20,
]
REFUSED_IDS = [text for text in TEXTS if len(text) > 1000 or set(text) & set("\0\n\x1b")]
TOP = {"clips", "runs", "failures", "index", "work", "inputs"}


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """A working directory, two levels below tmp_path, with a config and a checkpoint."""
    home = tmp_path / "a" / "b"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    Path("config.yaml").write_text(CONFIG)
    Path("tiny").symlink_to(tiny("t2v-1.3b"))
    return home


def files(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_texts_stay_texts(folder, run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-the-operator"))
    bad = [{"id": text, "prompt": "a", "num_frames": 4} for text in TEXTS]
    ids = [{"id": text, "prompt": f"of its own {number}"} for number, text in enumerate(TEXTS)]
    rows = [{"id": f"t{n}", "prompt": t, "tags": {"x": t}, "unknown": t} for n, t in enumerate(TEXTS)]
    rows += [{"prompt": "a", "tags": {text: 1}} for text in TEXTS[:3]]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + ids + bad))
    before = files(tmp_path)
    code, out, err = run_cli("render", "config.yaml")
    written = files(tmp_path) - before
    metas = [json.loads(path.read_text()) for path in Path("out").glob("clips/*/*/meta.json")]
    assert code == 2, err
    assert {name.split("/")[:3] == ["a", "b", "out"] for name in written} == {True}
    assert {name.split("/")[3] for name in written} <= TOP
    given = {meta["ids"][0]: meta for meta in metas}
    assert [text for text in TEXTS if text not in given] == REFUSED_IDS
    for number, text in enumerate(TEXTS):
        if text == TEXTS[-1]:  # refused, not cut off
            assert f"t{number}" not in given
        else:
            meta = given[f"t{number}"]
            assert meta["request"]["prompt"] == meta["tags"]["x"] == meta["tags"]["unknown"] == text
    assert not any(line.startswith(("error: all", "12:00:00 forged")) for line in (out + err).splitlines())
    assert not {"\x1b", "\x07", "\0", "\u202e"} & set(out + err)
    assert "home-of-the-operator" not in out + err + json.dumps(metas)
    assert max(map(len, (out + err).splitlines())) < 2000


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("simplecache::s3://me:secret@bucket/a.png?sig=secret", "simplecache::s3://bucket/a.png"),
        ("ssh://me:secret@host/a.png", "ssh://host/a.png"),
        ("http://[::1/a.png?secret", "http://[::1/a.png"),
        ("github://a:b@/\n\x1b[2J", "github:///"),
        ("/etc/passwd", "/etc/passwd"),
    ],
)
def test_media_that_may_not_be_opened_are_named_without_their_secrets(uri, shown, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table, _ = normalise_table(pa.table({"image": [uri]}))
    rules = absolute_roots(MediaConfig(allow_roots=["data"]))
    _, (problem,) = MediaOpener(lambda sha256, content: "", rules=rules).open(table)
    message = str(problem)
    assert "column image: must be a readable file, got" in message
    assert shown in message
    assert "media.allow_" in message or "chains of stores" in message
    assert "secret" not in message
    assert message.isprintable()


def test_relative_roots_are_those_of_the_driver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_roots(MediaConfig(allow_roots=["data"])).allow_roots == [str(tmp_path / "data")]
    assert absolute_roots(MediaConfig()).allow_roots is None
    assert absolute_roots(MediaConfig(allow_roots=[])).allow_roots == []
