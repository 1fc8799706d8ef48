"""What the output tells of requests that have ended, or that nobody has taken up yet. No Ray."""

import mimetypes
from typing import Any

from wanray.engine.endpoint.desk import Status
from wanray.engine.endpoint.views import committed_video, failed_video, open_video
from wanray.sinks.backlog import Backlog
from wanray.sinks.ledger import Ledger
from wanray.storage import Store

KEY_CHARS = 64


class Archive:
    """Of one output. Methods raise StorageError where the store fails."""

    def __init__(self, store: Store) -> None:
        self.store, self.ledger, self.backlog = store, Ledger(store), Backlog(store)

    def video(self, key: str) -> dict[str, Any] | None:
        """The view of a request, None if there is none of this key."""
        if (meta := self.meta(key)) is not None:
            return committed_video(meta)
        if not is_key(key):
            return None
        if (accepted := self.backlog.get(key)) is not None:
            return open_video(accepted.record, Status.QUEUED, None)
        failure = self.ledger.read_failure(key)
        return None if failure is None else failed_video(failure)

    def meta(self, key: str) -> dict[str, Any] | None:
        """`meta.json` of a committed clip."""
        return self.ledger.read_meta(key) if is_key(key) else None


def is_key(text: str) -> bool:
    """Whether this can be the key of a request; anything else must not become part of a path."""
    return len(text) == KEY_CHARS and set(text) <= set("0123456789abcdef")


def media_type(path: str) -> str:
    """Of a clip's file."""
    return mimetypes.guess_type(path)[0] or "application/octet-stream"
