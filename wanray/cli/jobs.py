"""The commands that have a cluster render: submit, and what becomes of it."""

import json
import time
from typing import Annotated, Any

import typer

from wanray.cli.pages import print_page
from wanray.cli.render import Config, Only, Overrides, RetryFailed
from wanray.errors import ExitCode

app = typer.Typer(
    help="Jobs on a Ray cluster: submit, list, status, logs, stop.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Address = Annotated[
    str,
    typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The head's job server."),
]
LOCAL = "http://127.0.0.1:8265"
Id = Annotated[str, typer.Argument(metavar="ID", help="As `submit` printed it.")]


def submit(
    config: Config,
    overrides: Overrides = None,
    address: Address = LOCAL,
    working_dir: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Uploaded, less what .gitignore and .rayignore name; default: ."),
    ] = None,
    runtime_env: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="Ray's runtime environment: pip, env_vars, ...")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Variable of the job; without a value, the one set here."),
    ] = None,
    id: Annotated[
        str | None, typer.Option(help="Name of the job, never used before on this cluster.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once submitted, instead of following.")
    ] = False,
    entrypoint_cpus: Annotated[
        float, typer.Option(metavar="N", help="CPUs for the driver: above 0 it may run on any node.")
    ] = 0,
    python: Annotated[str, typer.Option(help="Python on the head.")] = "python",
    only: Only = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Have a cluster render, and follow it; Ctrl-C stops following, not the job.

    The exit code is that of `render`; 3 also if the job was stopped or the cluster is gone.
    """
    from wanray.engine.jobs import JobServer
    from wanray.engine.submission import make_submission, read_runtime_env, read_variables

    environment = read_runtime_env(runtime_env)
    environment["working_dir"] = working_dir or environment.get("working_dir") or "."
    environment["env_vars"] = (environment.get("env_vars") or {}) | read_variables(env or [])
    flags = [f"--only={name}" for name in only or ()] + ["--retry-failed"] * retry_failed
    submission = make_submission(
        config,
        overrides or [],
        flags,
        runtime_env=environment,
        python=python,
        id=id,
        num_cpus=entrypoint_cpus,
    )
    server = JobServer.open(address)
    job_id = server.submit(submission)
    print(f"job {job_id} is submitted to {address}", flush=True)
    if no_wait:
        _print_what_next(job_id, address)
        return
    raise typer.Exit(follow_job(server, job_id))


@app.command("list")
def list_jobs(
    address: Address = LOCAL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the jobs of a cluster, the latest first."""
    from rich.table import Table

    from wanray.engine.jobs import JobServer

    jobs = [_facts(job) for job in JobServer.open(address).jobs()]
    if as_json:
        print(json.dumps(jobs, indent=1, ensure_ascii=False))
        return
    table = Table("job", "status", "exit", "started", "took", "config", "output", box=None, pad_edge=False)
    for facts in jobs:
        table.add_row(
            *(_shown(facts, name) for name in ("id", "status", "exit_code", "started", "seconds")),
            facts["config"] or facts["entrypoint"],
            facts["output"],
        )
    print_page(table if jobs else "no job was submitted to this cluster", width=200)


@app.command()
def status(
    id: Id,
    address: Address = LOCAL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print how a job fares. Exit code 0 while it waits or runs, then as `submit`."""
    from wanray.engine.jobs import JobServer, exit_code_of, why_ended

    job = JobServer.open(address).job(id)
    facts = _facts(job) | {"why": why_ended(job)}
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        for name in facts:
            if shown := _shown(facts, name):
                print(f"{name:<11}{shown}")
    raise typer.Exit(exit_code_of(job) if job.status.is_terminal() else ExitCode.DONE)


@app.command()
def logs(
    id: Id,
    address: Address = LOCAL,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends, as `submit` does.")] = False,
) -> None:
    """Print what a job has printed."""
    from wanray.engine.jobs import JobServer

    server = JobServer.open(address)
    if follow:
        raise typer.Exit(follow_job(server, id))
    print(server.logs(id), end="")


@app.command()
def stop(
    id: Id,
    address: Address = LOCAL,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once, while it drains.")] = False,
) -> None:
    """Stop a job: clips in work store their state, and submitting the same again resumes them."""
    from wanray.engine.jobs import JobServer

    server = JobServer.open(address)
    if not server.stop(id):
        print(f"job {id} has ended before: {server.job(id).status.value}")
        return
    print(f"job {id} is told to stop; it may take faults.drain_s", flush=True)
    if not no_wait:
        ended = server.wait(id)
        print(f"job {id} has ended: {ended.status.value}")


def follow_job(server: Any, id: str) -> int:
    """Print the job's output until its end; returns the exit code."""
    from wanray.engine.jobs import exit_code_of, why_ended

    try:
        job = server.follow(id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\njob {id} goes on")
        _print_what_next(id, server.address)
        return ExitCode.INTERRUPTED
    why = why_ended(job)
    print(f"job {id} has ended: {job.status.value}{f', {why}' if why else ''}")
    return exit_code_of(job)


def _print_what_next(id: str, address: str) -> None:
    for words, verb in (("logs --follow", "follow it"), ("status", "ask for it"), ("stop", "stop it")):
        print(f"{verb:<11}wanray job {words} {id} --address {address}")


def _facts(job: Any) -> dict[str, Any]:
    """Of a job, with the names of the JSON."""
    meta = job.metadata or {}
    ended_ms = job.end_time or time.time() * 1000
    return {
        "id": job.submission_id,
        "status": job.status.value,
        "exit_code": job.driver_exit_code,
        "started": job.start_time and job.start_time / 1000,
        "seconds": job.start_time and round((ended_ms - job.start_time) / 1000, 1),
        "config": meta.get("wanray_config", ""),
        "output": meta.get("wanray_output", ""),
        "entrypoint": job.entrypoint,
    }


def _shown(facts: dict[str, Any], name: str) -> str:
    value = facts[name]
    if value is None:
        return ""
    if name == "started":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return f"{value:.0f} s" if name == "seconds" else str(value)
