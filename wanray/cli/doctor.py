"""The command that finds out what is wrong: with a checkpoint, or with a cluster."""

import json
import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from wanray.cli.jobs import follow_job
from wanray.cli.pages import print_page
from wanray.errors import ConfigError, ExitCode


def doctor(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A checkpoint folder, or owner/name on a hub.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model that it should be.")] = None,
    with_loading: Annotated[bool, typer.Option("--load", help="Load each network too, one by one.")] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Examine every node of a cluster instead.")
    ] = False,
    address: Annotated[
        str, typer.Option(help="Of the cluster: host:port, or http://HEAD:8265 from outside of it.")
    ] = "auto",
    output: Annotated[
        str | None, typer.Option(metavar="URL", help="An output.url that every node shall reach.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="For the answer of a node.")] = 180.0,
    python: Annotated[str, typer.Option(help="Python on the head, where an address is http.")] = "python",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines (--cluster).")] = False,
) -> None:
    """Say everything that is missing or damaged in a checkpoint, or wrong with the nodes of a cluster.

    Exit code 0 if nothing is, else 1.
    """
    if cluster and address.startswith(("http://", "https://")):
        flags = [f"--output={output}"] * bool(output) + ["--json"] * as_json + [f"--timeout-s={timeout_s:g}"]
        command = [
            python,
            "-m",
            "wanray",
            "doctor",
            "--cluster",
            *flags,
            *([checkpoint] if checkpoint else []),
        ]
        raise typer.Exit(_examine_from_outside(address, shlex.join(command)))
    if cluster:
        raise typer.Exit(_examine(address, output, checkpoint, timeout_s, as_json=as_json))
    if checkpoint is None:
        raise ConfigError("doctor needs a checkpoint to look at, or --cluster: `wanray doctor --help`")
    raise typer.Exit(_examine_checkpoint(checkpoint, name, with_loading=with_loading))


def _examine_checkpoint(checkpoint: str, name: str | None, *, with_loading: bool) -> int:
    from wanray.doctor import diagnose_checkpoint, page
    from wanray.hub import resolve

    found = diagnose_checkpoint(resolve(checkpoint), name, with_loading=with_loading)
    print_page(page(found), width=160)
    return ExitCode.USAGE if found.all_problems else ExitCode.DONE


def _examine(
    address: str, output: str | None, checkpoint: str | None, timeout_s: float, *, as_json: bool
) -> int:
    from wanray.engine.diagnosis import diagnose, page
    from wanray.engine.nodes import look_at_nodes

    reports = diagnose(look_at_nodes(address, output, checkpoint, timeout_s))
    if as_json:
        print(json.dumps([asdict(report) for report in reports], indent=1, ensure_ascii=False))
    else:
        print_page(page(reports), width=220)
    return ExitCode.USAGE if any(report.problems for report in reports) else ExitCode.DONE


def _examine_from_outside(address: str, entrypoint: str) -> int:
    """The same as a job, since only the nodes of a cluster can look at each other."""
    from wanray.engine.jobs import JobServer
    from wanray.engine.submission import Submission

    server = JobServer.open(address)
    return follow_job(server, server.submit(Submission(entrypoint=entrypoint)))
