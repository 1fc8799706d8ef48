"""Checkpoints from a hub: a real HTTP server on loopback that speaks what huggingface_hub asks for."""

import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wanray.checkpoint import open_checkpoint
from wanray.errors import ConfigError
from wanray.hub import Repository, parse, resolve

COMMIT = "c0ffee" * 6 + "beef"
RESOLVE = """
import sys
from wanray.errors import ConfigError
from wanray.hub import resolve
try:
    print(resolve(sys.argv[1]))
except ConfigError as error:
    sys.exit(f"error: {error}")
"""


class Hub(http.server.ThreadingHTTPServer):
    """Repositories by name; notes every request."""

    def __init__(self, folders):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders = folders
        self.requests = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self):
        return sorted(
            path.split(COMMIT)[1][1:] for verb, path in self.requests if verb == "GET" and "resolve" in path
        )

    def stop(self):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        self.server.requests.append((self.command, self.path))
        if found := re.match(r"/api/models/([^/]+/[^/?]+)(/revision/([^?]+)|/tree/[^?]+)?", self.path):
            self.api(*found.groups())
        elif found := re.match(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", self.path):
            content = (self.server.folders[found[1]] / found[2]).read_bytes()
            self.answer(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
        else:
            self.answer(404, b"{}", {})

    do_HEAD = do_GET

    def api(self, name, rest, revision):
        if name == "Wan-AI/gated":
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if name not in self.server.folders:
            return self.answer(
                401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound"}
            )
        if revision not in (None, "main", COMMIT):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        folder = self.server.folders[name]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        entries = [
            {
                "type": "file",
                "path": str(path.relative_to(folder)),
                "size": path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in files
        ]
        info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": entry["path"]} for entry in entries]}
        content = entries if rest and rest.startswith("/tree") else info
        return self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tiny, tmp_path):
    """A hub with one checkpoint, and with what a render does not need beside it."""
    folder = tmp_path / "served"
    folder.mkdir()
    for file in tiny("t2v-1.3b").rglob("*"):
        if file.is_file():
            (folder / file.relative_to(tiny("t2v-1.3b"))).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, folder / file.relative_to(tiny("t2v-1.3b")))
    for name in ("README.md", "assets/logo.png", "examples/i2v.json", ".gitattributes", "LICENSE.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    server = Hub({"Wan-AI/Wan-Tiny": folder})
    yield server
    server.stop()


@pytest.fixture
def run(tmp_path):
    """run(path, **variables) -> (exit code, stdout, stderr) of `resolve` in a process of its own."""

    def start(path, **variables):
        environment = (
            os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"} | variables
        )
        command = [sys.executable, "-c", RESOLVE, path]
        root = Path(__file__).parents[1]
        environment["PYTHONPATH"] = str(root)
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.strip(), done.stderr

    return start


def test_download_then_cache_then_without_the_hub(hub, run, tiny):
    code, folder, err = run("Wan-AI/Wan-Tiny", HF_ENDPOINT=hub.url)
    assert code == 0, err
    original = tiny("t2v-1.3b")
    files = sorted(str(path.relative_to(original)) for path in original.rglob("*") if path.is_file())
    assert hub.downloads() == files
    assert all((Path(folder) / name).read_bytes() == (original / name).read_bytes() for name in files)
    assert open_checkpoint(folder).model.name == "t2v-1.3b"

    hub.requests.clear()
    assert run("hf://Wan-AI/Wan-Tiny@main", HF_ENDPOINT=hub.url)[:2] == (0, folder)
    assert hub.downloads() == []

    hub.stop()
    code, again, err = run("Wan-AI/Wan-Tiny", HF_ENDPOINT=hub.url)
    assert (code, again) == (0, folder)
    assert "Wan-AI/Wan-Tiny is taken from the cache" in err
    assert run(f"hf://Wan-AI/Wan-Tiny@{COMMIT}", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")[:2] == (0, folder)

    next((Path(folder) / "vae").glob("*.safetensors")).unlink()
    code, _, err = run("Wan-AI/Wan-Tiny", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert code == 1
    assert "the cache does not hold (all of) Wan-AI/Wan-Tiny" in err


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "Wan-AI/Nothing",
            ["Wan-AI/Nothing is no local folder, and", "has no public repository", "HF_TOKEN"],
        ),
        (
            "hf://Wan-AI/Nothing",
            ["model.path the Hugging Face hub", "has no public repository Wan-AI/Nothing"],
        ),
        ("Wan-AI/gated", ["only to those who accepted its terms", "HF_TOKEN"]),
        ("hf://Wan-AI/Wan-Tiny@v9", ["has no revision v9 of Wan-AI/Wan-Tiny", "what follows the @"]),
    ],
)
def test_what_the_hub_refuses(hub, run, path, words):
    code, _, err = run(path, HF_ENDPOINT=hub.url)
    assert code == 1
    assert [word for word in (*words, hub.url) if word not in err] == [], err


def test_hub_that_is_down(run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code, _, err = run("Wan-AI/Wan-Tiny", HF_ENDPOINT=url)
    assert code == 1
    for word in ("is no local folder, and", f"({url}) could not be reached", "copy the folder here"):
        assert word in err


def test_hub_that_does_not_answer(run):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code, _, err = run("hf://Wan-AI/x", HF_ENDPOINT=url, HF_HUB_ETAG_TIMEOUT="1")
    assert code == 1
    assert "could not be reached (ReadTimeout" in err


def test_offline(run):
    code, _, err = run("Wan-AI/Wan-Tiny", HF_HUB_OFFLINE="1")
    assert code == 1
    assert "HF_HUB_OFFLINE forbids to ask" in err
    assert "unset HF_HUB_OFFLINE" in err


def test_a_local_folder_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Wan-AI" / "Wan-Tiny").mkdir(parents=True)
    assert resolve("Wan-AI/Wan-Tiny") == "Wan-AI/Wan-Tiny"


@pytest.mark.parametrize(
    "path",
    ["/models/wan", "./models/wan", "../a/b", "wan", "a/b/c", "~/wan", "a//b", "a/b.git", "a/..", "a b/c"],
)
def test_what_can_only_be_local_is_never_sent(path):
    assert parse(path) is None
    with pytest.raises(ConfigError, match="does not exist: name a checkpoint folder, a repository such as"):
        resolve(path)


def test_forms_of_a_repository():
    assert parse("Wan-AI/Wan2.1-T2V-1.3B") == Repository(
        scheme="hf", id="Wan-AI/Wan2.1-T2V-1.3B", is_url=False
    )
    assert parse("hf://a/b@v1") == Repository(scheme="hf", id="a/b", revision="v1")
    assert parse("modelscope://Wan-AI/b") == Repository(scheme="modelscope", id="Wan-AI/b")


def test_modelscope_has_to_be_installed():
    with pytest.raises(ConfigError, match=r"pip install 'wanray\[modelscope\]'"):
        resolve("modelscope://Wan-AI/Wan2.1-T2V-1.3B")


def test_modelscope_is_asked_for_the_same_files(monkeypatch, tmp_path):
    """The package is not among the test dependencies: its one function, as documented, stands in."""
    (tmp_path / "modelscope.py").write_text(
        "def snapshot_download(*a, **k):\n    raise ValueError(repr((a, k)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"\('a/b',\), \{'revision': 'v1', 'allow_patterns': \['\*\.json'"):
        resolve("modelscope://a/b@v1")
    monkeypatch.delitem(sys.modules, "modelscope")
