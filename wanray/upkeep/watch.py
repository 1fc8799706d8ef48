"""Follows one run from another process: its snapshot, and as lines of a log what went wrong since."""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from wanray.errors import ExitCode
from wanray.live import FINISHED, RUNNING, Snapshot
from wanray.sinks.events import event_file, next_event_file, read_events
from wanray.sinks.ledger import Ledger
from wanray.upkeep.output import store_now
from wanray.upkeep.runs import RunView, known_runs, read_run, read_snapshot

logger = logging.getLogger(__name__)


class Follower:
    """Of one run, the newest unless told.

    Raises:
        ConfigError: there is no such run.
        StorageError: the store cannot be reached.
    """

    def __init__(self, ledger: Ledger, run: str | None = None) -> None:
        self._store = ledger.store
        names = known_runs(self._store, run)
        self.run = run or names[0]
        self.snapshot = Snapshot(run=self.run)
        self._ahead_s = store_now(self._store) - time.time()
        """Of the store's clock before ours."""
        self._next = next_event_file(self._store, self.run)
        self.view = self._look()

    @property
    def is_running(self) -> bool:
        """When it was last looked at."""
        return self.view.state == RUNNING

    @property
    def exit_code(self) -> int:
        """The run's own; that of a run which ended without a word says that it can be resumed."""
        code = self.view.exit_code if self.view.state == FINISHED else None
        return ExitCode.INFRASTRUCTURE if code is None else code

    def poll(self) -> None:
        """Look again, and log what went wrong since the last time."""
        self.view = self._look()
        for event in self._new_events():
            if line := _news(event):
                logger.warning("%s", line)

    def _look(self) -> RunView:
        self.snapshot = read_snapshot(self._store, self.run) or self.snapshot
        return read_run(self._store, self.run, time.time() + self._ahead_s)

    def _new_events(self) -> Iterator[dict[str, Any]]:
        """The files are numbered, so the next one is asked for by name: a long run has thousands."""
        with suppress(FileNotFoundError):
            while True:
                yield from read_events(self._store, self.run, [event_file(self._next)])
                self._next += 1


def _news(event: dict[str, Any]) -> str | None:
    """A line about an event that a person would want to know of."""
    if event["event"] == "failed":
        kind = f"{event['stage']}, {event['failure_class']}"
        return f"failed key={event['key'][:12]} ({kind}): {event['message']}"
    if event["event"] == "gang" and event["state"] != "idle":
        return f"gang {event['worker']} of {event['pool']} is {event['state']}: {event['detail']}"
    return None
