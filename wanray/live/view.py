"""Shows snapshots until a block ends: a table on a terminal, log lines elsewhere; or JSON; or nothing."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live

from wanray.background import background
from wanray.live.page import live_line, live_page
from wanray.live.snapshot import Snapshot

logger = logging.getLogger(__name__)

MODES = ("auto", "json", "quiet")
LINE_EVERY_S = 30.0
JSON_EVERY_S = 5.0
REFRESH_PER_S = 4


@contextmanager
def show(
    look: Callable[[], Snapshot], mode: str, out: TextIO, refresh_per_s: float = REFRESH_PER_S
) -> Iterator[None]:
    """Show what `look` returns, which may be called from another thread.

    mode: `auto` is a table on stderr where that is a terminal, else log lines; `json` writes a line of JSON
    (`{"event": "progress", ...}`) to `out` every few seconds and at the end; `quiet` shows nothing.
    """
    console = Console(stderr=True)
    if mode == "quiet":
        yield
    elif mode == "json":
        with _now_and_then(JSON_EVERY_S, lambda: _write(look(), out)):
            yield
        _write(look(), out)
    elif console.is_terminal:
        page = lambda: live_page(look())  # noqa: E731
        with Live(get_renderable=page, console=console, refresh_per_second=refresh_per_s):
            yield
    else:
        with _now_and_then(LINE_EVERY_S, lambda: logger.info("%s", live_line(look()))):
            yield


@contextmanager
def _now_and_then(every_s: float, act: Callable[[], None]) -> Iterator[None]:
    def work(stop: threading.Event) -> None:
        while not stop.wait(every_s):
            act()

    with background(work):
        yield


def _write(snapshot: Snapshot, out: TextIO) -> None:
    out.write(json.dumps({"event": "progress", **snapshot.to_json()}, ensure_ascii=False) + "\n")
    out.flush()
