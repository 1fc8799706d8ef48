"""What was found in an output, for people. Tables and lines; nothing is printed here."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.live import FINISHED
from wanray.units import format_bytes, format_seconds
from wanray.upkeep.clip import Damage
from wanray.upkeep.runs import RunView
from wanray.upkeep.status import Failures, Status
from wanray.upkeep.waste import Waste


def status_page(status: Status) -> RenderableType:
    """Clips, failures, runs."""
    size = f", {format_bytes(status.bytes)}" if status.num_indexed else ""
    if status.num_indexed < status.committed:
        size += f" in the {status.num_indexed} that are in the index (`wanray index` adds the rest)"
    lines: list[RenderableType] = [
        _line("output", status.url),
        _line("clips", f"{status.committed} committed{size}"),
        *_failure_lines(status.failures),
    ]
    if not status.runs:
        return Group(*lines, _line("runs", "none"))
    shown = f", the newest {len(status.runs)}" if status.num_runs > len(status.runs) else ""
    return Group(*lines, _line("runs", f"{status.num_runs}{shown}"), _runs_table(status.runs))


def damage_line(damage: Damage, url: str) -> str:
    """What is wrong, where, and what to do."""
    ids = f" (ids {', '.join(damage.ids)})" if damage.ids else ""
    return (
        f"broken {damage.key}{ids}: {damage.path}: expected {damage.expected}, found {damage.found}; "
        f"`wanray verify {url} --repair` gives it back to the next render"
    )


def waste_page(waste: Iterable[Waste]) -> RenderableType:
    """How many objects and bytes of each kind, and in all."""
    kinds: dict[str, list[int]] = {}
    for item in waste:
        kinds.setdefault(item.kind, []).append(item.num_bytes)
    table = Table("what", "objects", "size", box=None, pad_edge=False)
    for kind, sizes in kinds.items():
        table.add_row(kind, str(len(sizes)), format_bytes(sum(sizes)))
    table.add_row("all", str(sum(map(len, kinds.values()))), format_bytes(sum(map(sum, kinds.values()))))
    return table


def end_line(run: RunView) -> str:
    """How a run ended."""
    return f"run {run.run} {_state(run)}"


def _failure_lines(failures: Failures) -> list[RenderableType]:
    if not failures.count:
        return [_line("failed", "none")]
    sample = f"; of a sample of {failures.num_read}:" if failures.num_read < failures.count else ""
    lines: list[RenderableType] = [_line("failed", f"{failures.count}{sample}")]
    for kind in failures.kinds:
        lines.append(_line("", f"{kind['count']:>6} {kind['class']} ({kind['cause']})"))
    for message in failures.messages:
        lines.append(_line("", f"{message['count']:>6} x {message['message']}"))
    return lines


def _runs_table(runs: list[RunView]) -> Table:
    columns = ("run", "state", "committed", "failed", "clips/h", "last 10 min", "ETA", "last sign of life")
    table = Table(*columns, box=None, pad_edge=False)
    for run in runs:
        of = "" if run.total is None else f" of {run.total}"
        rates = (
            "-" if rate is None else f"{rate:g}" for rate in (run.clips_per_hour, run.recent_clips_per_hour)
        )
        eta = "-" if run.eta_s is None else format_seconds(run.eta_s)
        counts = (f"{run.committed}{of}", str(run.failed))
        table.add_row(Text(run.run), Text(_state(run)), *counts, *rates, eta, f"{_span(run.silent_s)} ago")
    return table


def _state(run: RunView) -> str:
    if run.state != FINISHED:
        return run.state
    return f"finished, exit code {run.exit_code}{f': {run.error}' if run.error else ''}"


def _span(seconds: float) -> str:
    """Such as `40 s` or `3.2 h`."""
    for size_s, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{seconds:.0f} s"


def _line(word: str, text: str) -> Text:
    return Text.assemble((f"{word:<9}", "bold"), text)
