"""A real Chromium that looks at a page, and a server that answers parts of files as browsers ask for them."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"]
PATIENCE_S = 20.0


class _Parts(SimpleHTTPRequestHandler):
    """Answers `Range: bytes=a-b`, without which no video seeks."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a video is no error."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The URL of the folder."""
    server = _Server(("127.0.0.1", 0), partial(_Parts, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One page in a context of its own, with all that went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait_for(self, condition: str) -> None:
        """Return when the script is true; the page's policy forbids the library's own way, which is eval."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < deadline_s, f"never came true: {condition}"
            self.page.wait_for_timeout(30)

    @property
    def cards(self) -> list[str]:
        """The keys of the cards that are there."""
        return self.run("[...document.querySelectorAll('.card')].map((card) => card.dataset.key)")


@contextmanager
def visit(browser: Browser, url: str, *, hosts: tuple[str, ...] = (), **context: Any) -> Iterator[Visit]:
    """Open `url`; whatever the page asks of other hosts is refused and, as all errors, noted."""
    settings: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
    opened = browser.new_context(**settings | context)
    seen = Visit(opened.new_page())
    allowed = {urlsplit(url).netloc, *hosts}

    def check(route: Route, request: Request) -> None:
        if urlsplit(request.url).netloc in allowed or request.url.startswith("data:"):
            route.continue_()
        else:
            seen.errors.append(f"asked for {request.url}")
            route.abort()

    opened.route("**/*", check)
    seen.page.on("console", lambda line: seen.errors.append(line.text) if line.type == "error" else None)
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.set_default_timeout(1000 * PATIENCE_S)
    try:
        seen.page.goto(url)
        yield seen
        assert not seen.errors, seen.errors
    finally:
        opened.close()
