"""SIGTERM, which says that this process will soon be killed, as an event."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_sigterm(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at SIGTERM until the block ends; only the main thread of a process can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        stop.set()

    former = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
