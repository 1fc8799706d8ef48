"""`wanray serve` as a user starts it, on a Ray cluster of its own, and a client of its HTTP API."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests
from heads import free_ports
from PIL import Image
from processes import children_of
from runs import ENVIRONMENT

TOKEN = "a-token-of-the-tests"
SMALL = {"width": 64, "height": 64, "num_frames": 5, "steps": 2}
LONG = 1000
"""Steps that are not done before a test has done something to the request."""
ENDED = ("completed", "failed", "cancelled")


class Server:
    """Of one output; it may be started again. `keys`: of the configuration."""

    def __init__(self, folder, model, out, **keys):
        (self.port,) = free_ports(1)
        self.folder, self.out = folder, out
        self.url = f"http://127.0.0.1:{self.port}"
        values = {"model.path": model, "output.url": out, "numerics.dtype": "float32"}
        values |= {"serve.port": self.port, "serve.token_env": "WANRAY_TEST_TOKEN"} | keys
        (folder / "serve.yaml").write_text("{}\n")
        self.arguments = [str(folder / "serve.yaml"), *(f"{key}={value}" for key, value in values.items())]
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"

    def start(self, **variables):
        """Start the command, in a session of its own, with these in its environment."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.log = self.folder / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("wanray")), "serve", *self.arguments],
                env=environment | ENVIRONMENT | {"WANRAY_TEST_TOKEN": TOKEN} | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, seconds=240):
        """Return when the command says where to send requests."""
        self.wait_until(lambda: "requests http" in self.log.read_text(), seconds)

    def wait_until(self, condition, seconds=120):
        """Return what `condition()` gives when it holds; fail when the command ends before."""
        deadline_s = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"{self.process.returncode}: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline_s, self.log.read_text()[-3000:]
            time.sleep(0.1)
        return found

    def terminate(self, seconds=120):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def end(self):
        """Leave nothing running that this object has started."""
        left = children_of(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in left & members(self.process.pid):
            os.kill(pid, signal.SIGKILL)

    def processes(self):
        """Pids of all that the command has started."""
        return children_of(self.process.pid)

    def call(self, method, path="", **keys):
        """An HTTP request below /v1/videos; `path` may be a key."""
        target = f"{self.url}/v1/videos{'/' if path else ''}{path}"
        return self.session.request(method, target, timeout=60, **keys)

    def send(self, row):
        """POST of a row; (status code, body)."""
        answer = self.call("POST", json=row)
        return answer.status_code, answer.json()

    def accepted(self, **row):
        """The id of a small request that is accepted now."""
        code, body = self.send(SMALL | row)
        assert code == 202, body
        return body["id"]

    def look(self, key):
        """The view of a request."""
        answer = self.call("GET", key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for(self, key, *states, seconds=120):
        """The view of a request when its status is one of `states`."""

        def reached():
            view = self.look(key)
            assert view["status"] in states or view["status"] not in ENDED, view
            return view if view["status"] in states else None

        return self.wait_until(reached, seconds)

    def wait_for_step(self, key, step=5):
        """Return when the request is being denoised."""
        return self.wait_until(lambda: (view := self.look(key)).get("step", 0) >= step and view)


def members(session):
    """Pids of a session, also of those whose parents have ended."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getsid(int(folder.name)) == session:
                found.add(int(folder.name))
        except ProcessLookupError:
            continue
    return found


def png(colour):
    sink = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(sink, "PNG")
    return sink.getvalue()


def data_uri(content):
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def meta_of(store, key):
    return json.loads(store.read(f"clips/{key[:2]}/{key}/meta.json"))


def metas(store):
    """The keys of all that is committed, as often as they are."""
    return [path.split("/")[-2] for path in store.find("clips") if path.endswith("/meta.json")]


def events(store, name):
    """All events of that name over all runs."""
    paths = [path for path in store.find("runs") if "/events/" in path]
    found = [json.loads(line) for path in paths for line in store.read(path).splitlines()]
    return [event for event in found if event["event"] == name]
