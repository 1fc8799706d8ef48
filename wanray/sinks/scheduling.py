"""Keeps encoders from changing how the system schedules this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Undo what is done inside to the scheduling of this process's threads.

    SVT-AV1, where it runs as root, makes its threads and the one that calls it real-time threads of the
    highest priority. What they start inherits it, and what waits busily then starves the node.
    """
    if not TASKS.is_dir():  # Linux only
        yield
        return
    before = _policies()
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            if policy != before.get(thread, usual[0]):
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(thread, *usual)


def _policies() -> dict[int, int]:
    """Thread id -> scheduling policy."""
    found = {}
    for entry in TASKS.iterdir():
        with suppress(ProcessLookupError):
            found[int(entry.name)] = os.sched_getscheduler(int(entry.name))
    return found
