"""What Ray says on the driver's terminal that is not for our user: kept for debugging, not shown.

Ray's C++ writes to file descriptor 2, its Python prints what raylets report to stdout. While a run goes on,
the former passes through a pipe, and the latter becomes lines of our log.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ray._private import worker as ray_worker

logger = logging.getLogger(__name__)

CORE_LINE = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+ [DIWE] \d+ \d+\] ")
"""How a line of Ray's C++ log begins, unless it is fatal; what matters of it comes as an exception too."""
USUAL = ("worker processes have been started on node", "Task GangPool.start failed.")
"""What is reported of any run with more actors than cores, and of pools that are ended while they load."""
MAX_CHARS = 400
ENDING_S = 1.0
"""Processes that a run leaves behind may hold the pipe open."""


@contextmanager
def tamed() -> Iterator[None]:
    """Until the block ends, show of what Ray says only what a user can do something about."""
    former, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, _report
    try:
        with _filtered_stderr():
            yield
    finally:
        ray_worker.print_to_stdstream = former


def _report(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Stands in for Ray's printing of what a raylet reports."""
    for text in data["lines"]:
        line = " ".join(text.split())
        level = logging.DEBUG if any(words in line for words in USUAL) else logging.WARNING
        logger.log(level, "ray: %s", line[:MAX_CHARS])


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Descriptor 2 becomes a pipe; `sys.stderr` writes where it did before."""
    former, real = sys.stderr, os.dup(2)
    reading, writing = os.pipe()
    former.flush()
    os.dup2(writing, 2)
    os.close(writing)
    if _is_on(former, 2):
        sys.stderr = os.fdopen(os.dup(real), "w", buffering=1, errors="backslashreplace")
    thread = threading.Thread(target=_pass_on, args=(os.fdopen(reading, errors="replace"),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        former.flush()
        os.dup2(real, 2)  # ends the pipe
        os.close(real)
        thread.join(ENDING_S)
        own, sys.stderr = sys.stderr, former
        if own is not former:
            own.close()


def _is_on(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):  # a stand-in in memory
        return False


def _pass_on(lines: TextIO) -> None:
    with lines:
        for line in lines:
            if CORE_LINE.match(line):
                logger.debug("ray: %s", line.strip()[:MAX_CHARS])
            else:
                sys.stderr.write(line)
                sys.stderr.flush()
