"""A run as it can be seen while it goes on: one value, one page, one line, one table of metrics. No Ray."""

from wanray.live.page import live_line, live_page
from wanray.live.snapshot import ENDED, FINISHED, RUNNING, GangView, PoolView, Snapshot
from wanray.live.view import MODES, show

__all__ = [
    "ENDED",
    "FINISHED",
    "MODES",
    "RUNNING",
    "GangView",
    "PoolView",
    "Snapshot",
    "live_line",
    "live_page",
    "show",
]
