"""The command line. The only file that prints; heavy imports wait until a command needs them."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wanray.errors import ConfigError, EngineError, ExitCode, ManifestError, StorageError

app = typer.Typer(
    name="wanray",
    help="Render datasets of videos with Wan on a Ray cluster, each clip exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="YAML file; it states only what differs from the defaults.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as output.url=s3://bucket/run1")]


@app.command()
def render(config: Config, overrides: Overrides = None) -> None:
    """Render what is left of a manifest: prints the plan first, the report last.

    The same command again resumes. Exit code 0: all committed; 2: finished with failures;
    3: infrastructure failed, try again; 1: wrong use.
    """
    from wanray.engine.job import execute

    job = _prepare(config, overrides, write=True)
    _print_plan(job.plan)
    summary = execute(job)
    _print_summary(summary, job.ledger.store.url)
    raise typer.Exit(summary.exit_code)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print what `render` would do, on what and how long; starts and writes nothing."""
    from wanray.plan.page import plan_json

    planned = _prepare(config, overrides, write=False).plan
    if as_json:
        print(json.dumps(plan_json(planned), indent=1, ensure_ascii=False))
    else:
        _print_plan(planned)


@app.command()
def manifest(
    source: Annotated[str, typer.Argument(help="A text file (one prompt per line), JSONL, CSV or Parquet.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The Parquet file to write.")],
) -> None:
    """Convert a list of prompts to a Parquet manifest and validate every value."""
    from wanray.manifest import convert

    print(f"{convert(source, output)} rows written to {output}")


@app.command()
def tiny(
    model: Annotated[str, typer.Argument(help="A model of the registry, such as t2v-1.3b or t2v-a14b.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Write a tiny random checkpoint (under a megabyte) to try things out; it renders noise."""
    from wanray.stage import load

    try:
        load("wanray.models.tiny:write_tiny")(model, output)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written ({error.strerror}): name a new folder") from None
    print(f"tiny random {model} written to {output}")


def _prepare(config: Path, overrides: list[str] | None, *, write: bool) -> Any:
    """The job that a configuration describes; what is wrong with a value names its place."""
    from wanray.config import load_config, place_of
    from wanray.engine.prepare import prepare

    loaded = load_config(config, overrides)
    try:
        return prepare(loaded, write=write)
    except ConfigError as error:
        raise ConfigError(f"{error} ({place_of(str(error), overrides or [], str(config))})") from None


def _print_plan(planned: Any) -> None:
    from rich.console import Console

    from wanray.plan.page import plan_page

    Console(soft_wrap=not sys.stdout.isatty()).print(plan_page(planned), highlight=False)


def _print_summary(summary: Any, url: str) -> None:
    classes = ", ".join(f"{number} {name}" for name, number in summary.failed_by_class.items())
    failed = summary.failed + summary.invalid
    print(
        f"{summary.committed} clips committed, {summary.skipped} were committed before, "
        f"{failed} failed{f' ({classes})' if classes else ''}, in {summary.seconds:.1f} s"
    )
    print(f"clips    {url}/clips/")
    if failed:
        print(f"failures {url}/failures/")
    print(f"run      {url}/runs/{summary.run}/")


def main() -> None:
    """Entry point: errors that wanray raises on purpose become one line and an exit code."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("wanray").setLevel(logging.INFO)
    try:
        app()
    except SystemExit as ending:
        if ending.code == ExitCode.INTERRUPTED:
            _fail("interrupted; the same command resumes", ExitCode.INTERRUPTED)
        # typer ends wrong use with 2, which here is a run that finished with failures
        sys.exit(ending.code if isinstance(ending.__context__, typer.Exit) else ExitCode.USAGE)
    except (ConfigError, ManifestError) as error:
        _fail(error, ExitCode.USAGE)
    except (EngineError, StorageError) as error:
        _fail(error, ExitCode.INFRASTRUCTURE)


def _fail(message: object, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
