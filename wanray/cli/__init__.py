"""The command line. Only this package prints; heavy imports wait until a command needs them."""

import logging
import sys

import typer

from wanray.cli import checkpoints, doctor, jobs, manifests, profile, render, report, serve, upkeep
from wanray.errors import ConfigError, EngineError, ExitCode, ManifestError, StorageError, printable

app = typer.Typer(
    name="wanray",
    help="Render datasets of videos with Wan on a Ray cluster, each clip exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help as plain text: rich takes a third of its time to import
)
_COMMANDS = (
    render.render,
    render.plan,
    profile.profile,
    render.extend,
    render.decode,
    serve.serve,
    jobs.submit,
    upkeep.status,
    upkeep.watch,
    report.report,
    upkeep.verify,
    upkeep.index,
    upkeep.gc,
    manifests.manifest,
    checkpoints.tiny,
    checkpoints.models,
    checkpoints.convert,
    doctor.doctor,
)
for _command in _COMMANDS:
    app.command()(_command)
jobs.app.command("submit")(jobs.submit)
app.add_typer(jobs.app, name="job")


class _Lines(logging.Formatter):
    """A message is one line, whatever texts of others it quotes."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)


def main() -> None:
    """Entry point: errors that wanray raises on purpose become one line and an exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("wanray").setLevel(logging.INFO)
    try:
        app()
    except SystemExit as ending:
        if isinstance(getattr(ending.__context__, "__cause__", None), KeyboardInterrupt):
            _fail("interrupted; the same command resumes", ExitCode.INTERRUPTED)
        # typer ends wrong use with 2, which here is a run that finished with failures
        sys.exit(ending.code if isinstance(ending.__context__, typer.Exit) else ExitCode.USAGE)
    except (ConfigError, ManifestError) as error:
        _fail(error, ExitCode.USAGE)
    except (EngineError, StorageError) as error:
        _fail(error, ExitCode.INFRASTRUCTURE)


def _fail(message: object, code: int) -> None:
    text = "\n".join(map(printable, str(message).split("\n")))
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)
