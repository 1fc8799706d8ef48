"""The commands that plan and render."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wanray.cli.pages import print_page
from wanray.errors import ConfigError, ExitCode

Config = Annotated[Path, typer.Argument(help="YAML file; it states only what differs from the defaults.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as output.url=s3://bucket/run1")]


Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY|ID", help="Only this request, even if it failed before. May be repeated."),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also what failed in an earlier run for good.")
]


def render(
    config: Config,
    overrides: Overrides = None,
    only: Only = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Render what is left of a manifest: prints the plan first, the report last.

    The same command again resumes. Exit code 0: all committed; 2: finished with failures;
    3: infrastructure failed, try again; 1: wrong use.
    """
    from wanray.engine.job import execute
    from wanray.engine.prepare import Choice

    choice = Choice(only=tuple(only or ()), retry_failed=retry_failed)
    job = _prepare(config, overrides, choice, write=True)
    _print_plan(job.plan)
    summary = execute(job)
    _print_summary(summary, job.ledger.store.url)
    raise typer.Exit(summary.exit_code)


def plan(
    config: Config,
    overrides: Overrides = None,
    only: Only = None,
    retry_failed: RetryFailed = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print what `render` would do, on what and how long; starts and writes nothing."""
    from wanray.engine.prepare import Choice
    from wanray.plan.page import plan_json

    choice = Choice(only=tuple(only or ()), retry_failed=retry_failed)
    planned = _prepare(config, overrides, choice, write=False).plan
    if as_json:
        print(json.dumps(plan_json(planned), indent=1, ensure_ascii=False))
    else:
        _print_plan(planned)


def extend(
    config: Config,
    overrides: Overrides = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Parquet file to write; URL/extended.parquet if left out."),
    ] = None,
) -> None:
    """Only extend the prompts, without GPU and Ray: writes a manifest to read, to edit and to render.

    Render it with extension.method=none. Exit code 0: all prompts extended; 2: some were kept as written or
    left out; 1: wrong use.
    """
    from io import BytesIO

    import pyarrow.parquet as pq

    from wanray.engine.extend_alone import extend_manifest
    from wanray.storage import Store

    loaded, done = _prepared(config, overrides, lambda loaded: (loaded, extend_manifest(loaded)))
    folder, _, name = (to or f"{loaded.output.url.rstrip('/')}/extended.parquet").rpartition("/")
    sink = BytesIO()
    pq.write_table(done.table, sink)
    Store.open(folder or ".").write(name, sink.getvalue())
    for problem in done.problems:
        print(f"left out: {problem}")
    print(
        f"{done.table.num_rows - done.num_kept} prompts extended, {done.num_kept} kept as written, "
        f"{len(done.problems)} rows left out"
    )
    print(f"manifest {folder or '.'}/{name} (render it with extension.method=none)")
    raise typer.Exit(ExitCode.FAILURES if done.num_kept or done.problems else ExitCode.DONE)


def decode(
    latents: Annotated[str, typer.Argument(help="output.url of a render with output.save_latents=true.")],
    config: Config,
    overrides: Overrides = None,
) -> None:
    """Make the videos of a render again from its saved latents: other codec, format or tiling.

    Nothing is denoised. Give the render's own config, with another output.url and other output.video keys.
    Exit codes and resuming are those of `render`.
    """
    from wanray.engine.job import execute
    from wanray.engine.redecode import prepare_decode

    job = _prepared(config, overrides, lambda loaded: prepare_decode(latents, loaded))
    _print_plan(job.plan)
    summary = execute(job)
    _print_summary(summary, job.ledger.store.url)
    raise typer.Exit(summary.exit_code)


def _prepare(config: Path, overrides: list[str] | None, choice: Any, *, write: bool) -> Any:
    from wanray.engine.prepare import prepare

    return _prepared(config, overrides, lambda loaded: prepare(loaded, choice, write=write))


def _prepared(config: Path, overrides: list[str] | None, prepare: Callable[[Any], Any]) -> Any:
    """The job that a configuration describes; what is wrong with a value names its place."""
    from wanray.config import load_config, place_of

    loaded = load_config(config, overrides)
    try:
        return prepare(loaded)
    except ConfigError as error:
        raise ConfigError(f"{error} ({place_of(str(error), overrides or [], str(config))})") from None


def _print_plan(planned: Any) -> None:
    from wanray.plan.page import plan_page

    print_page(plan_page(planned))


def _print_summary(summary: Any, url: str) -> None:
    classes = ", ".join(f"{number} {name}" for name, number in summary.failed_by_class.items())
    failed = summary.failed + summary.invalid
    print(
        f"{summary.committed} clips committed, {summary.skipped} were committed before, "
        f"{failed} failed{f' ({classes})' if classes else ''}, in {summary.seconds:.1f} s"
    )
    if summary.failed_before:
        print(f"{summary.failed_before} failed before and were left alone: --retry-failed renders them too")
    print(f"clips    {url}/clips/")
    if failed:
        print(f"failures {url}/failures/")
    print(f"run      {url}/runs/{summary.run}/")
