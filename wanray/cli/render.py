"""The commands that plan and render."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from wanray.cli.pages import print_page
from wanray.errors import ConfigError, ExitCode, StorageError

logger = logging.getLogger(__name__)

MOST_REPORTED = 100_000
"""Requests of a run that ends with its report."""

Config = Annotated[Path, typer.Argument(help="YAML file; it states only what differs from the defaults.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as output.url=s3://bucket/run1")]


Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY|ID", help="Only this request, even if it failed before. May be repeated."),
]
Compare = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=V1,V2", help="Other values in one table, all combinations. May be repeated."),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also what failed in an earlier run for good.")
]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Neither plan nor progress: only how it ended.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Lines of JSON for machines: plan, progress every 5 s, summary.")
]


def render(
    config: Config,
    overrides: Overrides = None,
    only: Only = None,
    retry_failed: RetryFailed = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Render what is left of a manifest: prints the plan first, the report last.

    The same command again resumes. Exit code 0: all committed; 2: finished with failures;
    3: infrastructure failed, try again; 1: wrong use.
    """
    from wanray.engine.prepare import Choice

    choice = Choice(only=tuple(only or ()), retry_failed=retry_failed)
    _carry_out(_prepare(config, overrides, choice, write=True), quiet=quiet, as_json=as_json)


def plan(
    config: Config,
    overrides: Overrides = None,
    only: Only = None,
    retry_failed: RetryFailed = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    compare: Compare = None,
) -> None:
    """Print what `render` would do, on what and how long; starts and writes nothing.

    With --compare also what other values of placement, topology.*, pools.* and estimate.* would make of it:
    --compare placement=split,both topology.ulysses=1,2
    """
    from wanray.config import load_config
    from wanray.engine.prepare import Choice
    from wanray.plan.compare import compare as compare_work
    from wanray.plan.compare import with_alternatives
    from wanray.plan.compare_page import compare_page
    from wanray.plan.files import plan_json

    chosen, combined = with_alternatives(overrides or [], compare or [])
    choice = Choice(only=tuple(only or ()), retry_failed=retry_failed)
    job = _prepare(config, chosen, choice, write=False)
    found = compare_work(job.work, combined, lambda others: load_config(config, [*chosen, *others]))
    if as_json:
        alternatives = {"alternatives": [item.to_json() for item in found]} if found else {}
        print(json.dumps(plan_json(job.plan) | alternatives, indent=1, ensure_ascii=False))
        return
    _print_plan(job.plan)
    if found:
        print_page(compare_page(found), width=200)


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

    loaded, done = prepared(config, overrides, lambda loaded: (loaded, extend_manifest(loaded)))
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
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the videos of a render again from its saved latents: other codec, format or tiling.

    Nothing is denoised. Give the render's own config, with another output.url and other output.video keys.
    Exit codes and resuming are those of `render`.
    """
    from wanray.engine.redecode import prepare_decode

    job = prepared(config, overrides, lambda loaded: prepare_decode(latents, loaded))
    _carry_out(job, quiet=quiet, as_json=as_json)


def _carry_out(job: Any, *, quiet: bool, as_json: bool) -> None:
    """Render, decode: plan, progress and summary as asked for; ends with the exit code of the run."""
    from wanray.engine.job import execute
    from wanray.live import show
    from wanray.plan.files import plan_json

    if quiet:
        logging.getLogger("wanray").setLevel(logging.WARNING)
    if as_json:
        _print_event("plan", plan_json(job.plan))
    elif not quiet:
        _print_plan(job.plan)
    mode = "quiet" if quiet else "json" if as_json else "auto"
    try:
        summary = execute(job, lambda look: show(look, mode, sys.stdout))
    finally:
        report = _write_report(job)
    if as_json:
        _print_event("summary", {**asdict(summary), "report": report})
    else:
        _print_summary(summary, job.ledger.store.url, report)
    raise typer.Exit(summary.exit_code)


def _write_report(job: Any) -> str | None:
    """The page of the run, which may have ended early; that it cannot be written is no harm to the run.

    A run of very many clips has events for minutes of reading, in which the cluster would wait.
    """
    from wanray.report import write_report

    if job.plan.counts.left > MOST_REPORTED:
        logger.info("the report of so many clips takes minutes: `wanray report %s`", job.ledger.store.url)
        return None
    try:
        return write_report(job.ledger.store, job.plan.run)
    except StorageError as error:
        url = job.ledger.store.url
        logger.warning("no report was written, `wanray report %s` tries again: %s", url, error)
        return None


def _print_event(name: str, values: dict[str, Any]) -> None:
    print(json.dumps({"event": name, **values}, ensure_ascii=False), flush=True)


def _prepare(config: Path, overrides: list[str] | None, choice: Any, *, write: bool) -> Any:
    from wanray.engine.prepare import prepare

    return prepared(config, overrides, lambda loaded: prepare(loaded, choice, write=write))


def prepared(
    config: Path, overrides: list[str] | None, prepare: Callable[[Any], Any], *, needs_manifest: bool = True
) -> Any:
    """What `prepare` makes of a configuration; what is wrong with a value names its place."""
    from wanray.config import load_config, place_of

    loaded = load_config(config, overrides, needs_manifest=needs_manifest)
    try:
        return prepare(loaded)
    except ConfigError as error:
        raise ConfigError(f"{error} ({place_of(str(error), overrides or [], str(config))})") from None


def _print_plan(planned: Any) -> None:
    from wanray.plan.page import plan_page

    print_page(plan_page(planned), width=120)


def _print_summary(summary: Any, url: str, report: str | None) -> None:
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
    if report is not None:
        print(f"report   {report}")
