"""An endpoint for chat completions on loopback: keeps the requests seen, answers from a script.

    with StubEndpoint(Answer(status=429, headers={"Retry-After": "2"}), completion("A cat.")) as stub:
        ChatClient(stub.base_url, "any", None).ask(question)
        stub.seen[0].body["seed"]

The last answer is given again and again.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    """Send nothing until the stub ends."""
    byte_pause_s: float | None = None
    """Send the body byte by byte with these pauses."""
    num_bytes: int | None = None
    """Of the body that are sent before the connection ends."""


@dataclass(frozen=True)
class Seen:
    """A request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def completion(content: Any, **choice: Any) -> Answer:
    """The answer of a model that says `content`."""
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", **choice}]
    return Answer(json.dumps({"id": "1", "object": "chat.completion", "choices": choices}).encode())


class StubEndpoint(ThreadingHTTPServer):
    """The server, in a thread from `with` to its end; `answers` may be changed meanwhile."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers) or [completion("A grey cat walks along a wall.")]
        self.seen: list[Seen] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def base_url(self) -> str:
        """For ChatClient."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "StubEndpoint":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def next_answer(self, seen: Seen) -> Answer:
        """The answer to a request, which is kept."""
        with self._lock:
            self.seen.append(seen)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        stub = cast(StubEndpoint, self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = stub.next_answer(Seen(self.path, dict(self.headers), json.loads(body)))
        if answer.silent:
            stub.ended.wait()
            return
        self.send_response_only(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self._send(answer, stub)
        if answer.num_bytes is not None:
            self.close_connection = True

    def _send(self, answer: Answer, stub: StubEndpoint) -> None:
        if answer.byte_pause_s is None:
            self.wfile.write(answer.body[: answer.num_bytes])
            return
        for byte in answer.body:
            self.wfile.write(bytes([byte]))
            if stub.ended.wait(answer.byte_pause_s):
                return

    def log_message(self, format: str, *args: object) -> None:
        """Tests have enough to say."""
