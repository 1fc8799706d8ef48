"""A loopback proxy before an S3 server that does what stores and networks do on bad days.

    with s3_proxy.running(s3_endpoint, seed=1, error_rate=0.3, kinds=("lost",)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.faults.error_rate = 0

    python tests/s3_proxy.py --listen 18000 --upstream http://127.0.0.1:18333 --seed 1 --error-rate 0.1
    curl -X PUT 'http://127.0.0.1:18000/__faults__?error_rate=0'

The control URL answers with the settings and how often each fault was met, as JSON; GET changes nothing.

Each request meets a fault with probability `error_rate`, of one of `kinds` with equal chances:

    slow_down  503 SlowDown, nothing reaches the store
    internal   500 InternalError, nothing reaches the store
    reset      the connection is reset, nothing reaches the store
    lost       the store does it, then the connection is reset
    cut        the store does it, then half of the answer comes
    twice      the store gets it twice, its second answer comes
    slow       the answer comes `slow_s` later

`lax` makes the store ignore If-None-Match. Clients sign Host, the proxy's name: it is passed on as it is.
"""

import argparse
import hashlib
import hmac
import json
import os
import random
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qsl, urlsplit

KINDS = ("slow_down", "internal", "reset", "lost", "cut", "twice", "slow")
_CONTROL = "/__faults__"
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "expect")
_ERRORS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
}


@dataclass
class Faults:
    """What goes wrong; may be changed while the proxy runs."""

    seed: int = 0
    error_rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    slow_s: float = 0.2
    lax: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    """How often each kind was met; `requests` is all of them."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def draw(self) -> str | None:
        """The fault that the next request meets."""
        with self._lock:
            self.counts["requests"] += 1
            kind = self._random.choice(self.kinds) if self._random.random() < self.error_rate else None
            self.counts.update([kind] if kind else [])
            return kind

    def update(self, settings: dict[str, str]) -> None:
        """Take the settings of a control URL: error_rate, kinds (with commas), slow_s, lax (0 or 1)."""
        for name, value in settings.items():
            match name:
                case "error_rate" | "slow_s":
                    setattr(self, name, float(value))
                case "kinds":
                    self.kinds = _kinds(value)
                case "lax":
                    self.lax = value == "1"
                case _:
                    raise ValueError(f"{name} cannot be set")

    def __str__(self) -> str:
        settings = {"error_rate": self.error_rate, "kinds": self.kinds, "slow_s": self.slow_s}
        return json.dumps(settings | {"lax": self.lax, "counts": self.counts})


class Proxy(ThreadingHTTPServer):
    """The proxy; `faults` may be changed at any time."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstream: str, faults: Faults, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.faults = faults

    @property
    def url(self) -> str:
        """Where it listens, for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are nobody's fault."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def running(upstream: str, **faults: object) -> Iterator[Proxy]:
    """A proxy before `upstream` (a URL) in a thread of this process; `faults` are fields of Faults."""
    with Proxy(upstream, Faults(**faults)) as proxy:  # type: ignore[arg-type]
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart

    @property
    def _proxy(self) -> Proxy:
        return cast(Proxy, self.server)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith(_CONTROL):
            self._control()
            return
        kind = self._proxy.faults.draw()
        if kind in _ERRORS:
            self._refuse(*_ERRORS[kind])
        elif kind == "reset":
            self._reset()
        else:
            self._forward(body, kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _control(self) -> None:
        if self.command == "PUT":
            self._proxy.faults.update(dict(parse_qsl(urlsplit(self.path).query)))
        self._answer(200, [("Content-Type", "application/json")], str(self._proxy.faults).encode())

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], body)

    def _forward(self, body: bytes, kind: str | None) -> None:
        if kind == "twice":
            self._ask(body)
        if kind == "slow":
            time.sleep(self._proxy.faults.slow_s)
        status, headers, answer = self._ask(body)
        if kind == "lost":
            self._reset()
        elif kind == "cut":
            self._answer(status, headers, answer, num_bytes=len(answer) // 2)
            self._reset()
        else:
            self._answer(status, headers, answer)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The store's status, headers and body."""
        headers = self.headers
        if self._proxy.faults.lax and "If-None-Match" in headers:
            headers = _without_condition(headers, self.command, self.path)
        connection = HTTPConnection(self._proxy.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, num_bytes: int | None = None
    ) -> None:
        """Send an answer, or its head and the first `num_bytes` of the body."""
        self.send_response_only(status)
        known = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in known and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:num_bytes])

    def _reset(self) -> None:
        """Have the connection end with RST, as a crash of the other side does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Tests have enough to say."""


def _without_condition(headers: Message, method: str, target: str) -> Message:
    """`headers` less If-None-Match, signed anew (AWS Signature Version 4) with AWS_SECRET_ACCESS_KEY."""
    changed = Message()
    for name, value in headers.items():
        if name.lower() != "if-none-match":
            changed[name] = value
    found = re.search(r"Credential=([^,]+), *SignedHeaders=([^,]+)", headers["Authorization"])
    assert found, headers["Authorization"]
    scope = found[1].split("/", 1)[1]
    signed = [name for name in found[2].split(";") if name != "if-none-match"]
    path, _, query = target.partition("?")
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)
    lines = [method, path, "&".join(pairs), *(f"{name}:{changed[name].strip()}" for name in signed), ""]
    canonical = "\n".join([*lines, ";".join(signed), changed["x-amz-content-sha256"]])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{changed['x-amz-date']}\n{scope}\n{digest}"):
        key = hmac.digest(key, part.encode(), "sha256")
    fields = f"Credential={found[1]}, SignedHeaders={';'.join(signed)}, Signature={key.hex()}"
    changed.replace_header("Authorization", f"AWS4-HMAC-SHA256 {fields}")
    return changed


def _kinds(value: str) -> tuple[str, ...]:
    kinds = tuple(value.split(","))
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} must be of {', '.join(KINDS)}")
    return kinds


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="S3 proxy that injects faults", allow_abbrev=False)
    parser.add_argument("--listen", type=int, required=True, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--upstream", required=True, help="URL of the S3 server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--error-rate", type=float, default=0.0)
    parser.add_argument("--kinds", type=_kinds, default=KINDS, help=f"comma-separated, of {','.join(KINDS)}")
    parser.add_argument("--slow-s", type=float, default=0.2)
    parser.add_argument("--lax", action="store_true", help="needs AWS_SECRET_ACCESS_KEY")
    given = vars(parser.parse_args())
    port, upstream = given.pop("listen"), given.pop("upstream")
    with Proxy(upstream, Faults(**given), port) as proxy:
        sys.stdout.write(f"{proxy.url}\n")
        sys.stdout.flush()
        proxy.serve_forever()


if __name__ == "__main__":
    main()
