"""The live view of a run: a rich table on a terminal, one log line per half minute elsewhere."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wanray.engine.background import background
from wanray.engine.monitor import GangView, Monitor, PoolView
from wanray.plan.page import format_seconds

logger = logging.getLogger(__name__)

LOG_EVERY_S = 30.0
REFRESH_PER_S = 4


@contextmanager
def show_progress(monitor: Monitor, console: Console | None = None) -> Iterator[None]:
    """Show `monitor` until the block ends."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        with Live(get_renderable=lambda: _table(monitor), console=console, refresh_per_second=REFRESH_PER_S):
            yield
        return

    def log_lines(stop: threading.Event) -> None:
        while not stop.wait(LOG_EVERY_S):
            logger.info("%s", progress_line(monitor))

    with background(log_lines):
        yield


def progress_line(monitor: Monitor) -> str:
    """The state of the run in one line."""
    pools = " ".join(
        f"{view.name}={view.done}/{view.active}/{view.queued}/{view.failed}" for view in monitor.views()
    )
    steps = " ".join(_steps(gang) for view in monitor.views() for gang in view.gangs if gang.num_steps)
    return (
        f"{monitor.committed} of {monitor.total} committed, {monitor.failed} failed, ETA {_eta(monitor)}, "
        f"done/active/queued/failed {pools}{f', steps {steps}' if steps else ''}"
    )


def _table(monitor: Monitor) -> Group:
    table = Table("stage", "done", "active", "queued", "failed", "gangs", box=None, pad_edge=False)
    for view in monitor.views():
        numbers = (view.done, view.active, view.queued, view.failed)
        table.add_row(view.name, *map(str, numbers), _gangs(view))
    head = f"{monitor.committed} of {monitor.total} committed, {monitor.failed} failed, "
    times = f"{format_seconds(monitor.elapsed_s)} so far, ETA {_eta(monitor)}"
    return Group(Text(head + times, style="bold"), table)


def _gangs(view: PoolView) -> str:
    return "  ".join(_steps(gang) for gang in view.gangs)


def _steps(gang: GangView) -> str:
    if gang.state != "busy":
        return gang.state
    return f"{gang.key[:8]} {gang.step}/{gang.num_steps}" if gang.num_steps else gang.key[:8]


def _eta(monitor: Monitor) -> str:
    """Time left at the mean rate so far."""
    finished = monitor.committed + monitor.failed
    if not finished:
        return "unknown"
    return format_seconds((monitor.total - finished) * monitor.elapsed_s / finished)
