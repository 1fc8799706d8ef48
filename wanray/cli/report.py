"""The command that makes the page of a run."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from wanray.errors import ConfigError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RUNS_TRIED = 20
_LONGEST_S = 7 * 86400
"""What S3 signs for."""


def report(
    url: Annotated[str, typer.Argument(metavar="URL", help="output.url of a render.")],
    run: Annotated[
        str | None, typer.Option(help="Name of a run; the newest that committed anything if left out.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here, not to URL/runs/RUN/report.html."),
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Show the clips of all runs.")] = False,
    limit: Annotated[int, typer.Option(help="Show at most so many clips, the newest.")] = 10_000,
    presign: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Link clips so that anybody can see them for so long, such as 24h."
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a trace for Perfetto; packed if it ends in .gz."),
    ] = None,
) -> None:
    """Write a page with the clips, failures and timings of a run, which any browser opens.

    The run may still be going on: the page shows it as it is now.
    """
    from wanray.live import RUNNING
    from wanray.report import Scope, write_page, write_trace
    from wanray.sinks.events import read_events
    from wanray.upkeep.output import open_output, store_now
    from wanray.upkeep.runs import read_run

    if limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}")
    presign_s = None if presign is None else _seconds(presign)
    store = open_output(url).store
    run = _known_run(store, run)
    is_running = read_run(store, run, store_now(store)).state == RUNNING
    scope = Scope(whole_output=whole, limit=limit, is_running=is_running)
    written = write_page(store, run, scope, to=output, presign_s=presign_s)
    print(_line(written.data))
    print(f"report   {written.uri}")
    if trace is not None:
        num_spans = write_trace(read_events(store, run), trace)
        print(f"trace    {trace} ({num_spans} spans; open it at https://ui.perfetto.dev)")


def _known_run(store: Any, run: str | None) -> str:
    """The run of this name; else the newest with clips, since a run that found nothing left has none."""
    from wanray.upkeep.runs import known_runs, read_snapshot

    names = known_runs(store, run)
    if run is not None:
        return run
    told = ((name, read_snapshot(store, name)) for name in names[:_RUNS_TRIED])
    return next((name for name, snapshot in told if snapshot and snapshot.committed), names[0])


def _seconds(text: str) -> int:
    """Such as `24h`, `30m`, `7d`, in seconds."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 1 <= seconds <= _LONGEST_S:
        raise ConfigError(f"--presign must be a time of at most 7d such as 24h, got {text}")
    return seconds


def _line(data: dict[str, Any]) -> str:
    run = data["run"]
    shown = sum(clip["status"] == "committed" for clip in data["clips"])
    rate = f", {3600 * run['committed'] / run['elapsed_s']:.3g} clips/h" if run["elapsed_s"] else ""
    left_out = f" ({data['num_left_out']} left out: --limit)" if data["num_left_out"] else ""
    counts = f"{run['committed']} clips committed, {run['failed']} failed{rate}"
    return f"run {run['name']} {run['state']}: {counts}; {shown} clips shown{left_out}"
