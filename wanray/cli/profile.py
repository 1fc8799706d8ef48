"""The command that measures."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from wanray.cli.pages import print_page
from wanray.cli.render import Config, Overrides, Quiet


def profile(
    config: Config,
    overrides: Overrides = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="Measure under all these values, as `plan` compares them."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps of each sample, of both experts together.")] = 8,
    quiet: Quiet = False,
) -> None:
    """Measure how long requests like those of a manifest take here, for `plan` and for denoise.gpus.

    Renders three clips of each size, with few steps, on one gang of each pool, and keeps only their times:
    --compare topology.ulysses=1,2,4. Exit code 0: measured; 3: samples failed.
    """
    import logging
    import sys

    from wanray.config import load_config
    from wanray.engine.profiling import measure
    from wanray.live import show
    from wanray.plan.compare import overrides_of, with_alternatives

    if quiet:
        logging.getLogger("wanray").setLevel(logging.WARNING)
    chosen, combined = with_alternatives(overrides or [], compare or [])
    configs = [load_config(config, [*chosen, *overrides_of(settings)]) for settings in combined or [{}]]
    mode = "quiet" if quiet else "auto"
    found = measure(configs, steps, lambda look: show(look, mode, sys.stdout))
    print_page(_table(found.measured), width=120)
    url = configs[0].output.url.rstrip("/")
    print(f"profile  {url}/profile.json: plans of this output rest on it from now on")


def _table(measured: Sequence[Any]) -> Any:
    from rich.table import Table

    names = ("stage", "size", "frames", "gang", "s/step", "s/clip", "TFLOP/s per rank")
    table = Table(*names, box=None, pad_edge=False)
    for row in sorted(_rows(measured)):
        table.add_row(*row)
    return table


def _rows(measured: Sequence[Any]) -> Iterator[tuple[str, ...]]:
    from wanray.plan.page import plain

    for entry in measured:
        is_denoise, seconds = entry.num_steps > 0, entry.mean_s
        speed = entry.tflop / seconds / entry.world_size if is_denoise and seconds else 0.0
        yield (
            entry.stage,
            f"{entry.width}x{entry.height}",
            str(entry.num_frames),
            entry.topology or ("1 rank" if is_denoise else "-"),
            plain(seconds / entry.num_steps) if is_denoise else "-",
            plain(seconds),
            plain(speed) if speed else "-",
        )
