"""The command line. The only file that prints; heavy imports wait until a command needs them."""

import json
import logging
import sys
from collections.abc import Callable
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


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Show all about this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print the models that wanray knows, with their tasks, inputs and official defaults."""
    from wanray import catalog
    from wanray.registry import MODELS, get_model

    chosen = [get_model(name)] if name else list(MODELS.values())
    if as_json:
        rows = [catalog.model_json(model) for model in chosen]
        print(json.dumps(rows[0] if name else rows, indent=1, ensure_ascii=False))
    else:
        _print_page(catalog.model_card(chosen[0]) if name else catalog.models_table(chosen), width=200)


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint folder, or owner/name on a hub.")
    ],
    output: Annotated[Path, typer.Argument(metavar="DST", help="New folder to write.")],
    dtype: Annotated[str, typer.Option(help="Of transformers and text encoder; or float32.")] = "bfloat16",
    name: Annotated[str | None, typer.Option(help="Model, where the files do not tell.")] = None,
    max_shard_gib: Annotated[float, typer.Option(help="Weights are split into files of this size.")] = 4.0,
) -> None:
    """Write a checkpoint in Diffusers layout, in bfloat16: half as much to read at every start.

    The same command again goes on where it was stopped, and checks what is there.
    """
    from wanray.hub import resolve
    from wanray.stage import load

    done = load("wanray.models.convert:convert")(resolve(source), str(output), dtype, name, max_shard_gib)
    print(
        f"{output} holds {done.model} in Diffusers layout: {done.num_files} files "
        f"({done.num_kept} were there), {done.num_tensors} tensors, {done.num_bytes / 1e9:.3g} GB, "
        f"in {done.seconds:.1f} s"
    )


@app.command()
def doctor(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, or owner/name on a hub.")],
    name: Annotated[str | None, typer.Option(help="Model that it should be.")] = None,
    with_loading: Annotated[bool, typer.Option("--load", help="Load each network too, one by one.")] = False,
) -> None:
    """Say everything that is missing or damaged in a checkpoint; exit code 0 if nothing is."""
    from wanray.doctor import diagnose_checkpoint, page
    from wanray.hub import resolve

    found = diagnose_checkpoint(resolve(checkpoint), name, with_loading=with_loading)
    _print_page(page(found), width=160)
    raise typer.Exit(ExitCode.USAGE if found.all_problems else ExitCode.DONE)


def _prepare(config: Path, overrides: list[str] | None, *, write: bool) -> Any:
    from wanray.engine.prepare import prepare

    return _prepared(config, overrides, lambda loaded: prepare(loaded, write=write))


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

    _print_page(plan_page(planned))


def _print_page(page: Any, width: int | None = None) -> None:
    """Print for people; into a file or pipe whole lines, with tables as wide as `width`."""
    from rich.console import Console

    piped = not sys.stdout.isatty()
    Console(soft_wrap=piped, width=width if piped else None).print(page, highlight=False)


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
