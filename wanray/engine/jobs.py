"""Jobs on a cluster, over the job server of its head: submit, look, follow, stop.

Needs no Ray runtime here, only HTTP; knows nothing of what a job renders.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from wanray.engine.submission import Submission
from wanray.engine.token import HOW, find_token
from wanray.errors import ConfigError, EngineError, ExitCode

_Answer = TypeVar("_Answer")

PROBE_TIMEOUT_S = 15.0
GONE_AFTER_S = 60.0
"""A server that does not answer for so long is gone; a head that restarts is back before."""
SILENT_S = 120.0
"""A driver says more, twice a minute."""
LOOK_EVERY_S = 1.0
EXAMPLE = "http://HEAD:8265"
_OWN_CODES = (ExitCode.DONE, ExitCode.USAGE, ExitCode.FAILURES, ExitCode.INFRASTRUCTURE)
NO_COMMAND = (126, 127)
"""What a shell ends with when it cannot start a command."""


class JobServer:
    """An open connection. All methods raise EngineError when the server has gone."""

    def __init__(self, address: str, client: JobSubmissionClient) -> None:
        self.address = address
        self._client = client

    @staticmethod
    def open(address: str) -> "JobServer":
        """The server at a URL such as http://HEAD:8265, with the token that is at hand.

        Raises:
            ConfigError: this is no job server, or it wants another token.
            EngineError: nobody answers.
        """
        address = _checked(address)
        token = find_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        _probe(address, headers)
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray prefers to what it is told
        _quieten()
        with self_explained(address):
            return JobServer(address, JobSubmissionClient(address, headers=headers))

    def submit(self, submission: Submission) -> str:
        """Upload the folder and start the job; returns its id.

        Raises:
            ConfigError: the id was used before, or Ray refuses the runtime environment.
        """
        try:
            with self_explained(self.address):
                return self._client.submit_job(
                    entrypoint=submission.entrypoint,
                    runtime_env=submission.runtime_env,
                    metadata=submission.metadata,
                    submission_id=submission.id,
                    entrypoint_num_cpus=submission.num_cpus,
                )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Ray refuses the job: {_first_line(error)}") from None

    def jobs(self) -> list[JobDetails]:
        """All that were submitted to this cluster, the latest first; other drivers are left out."""
        with self_explained(self.address):
            found = [job for job in self._client.list_jobs() if job.type is JobType.SUBMISSION]
        return sorted(found, key=lambda job: -(job.start_time or 0))

    def job(self, id: str) -> JobDetails:
        """One of them.

        Raises:
            ConfigError: there is none of this id.
        """
        with self_explained(self.address):
            return self._client.get_job_info(id)

    def logs(self, id: str) -> str:
        """What the job has printed so far."""
        self.job(id)
        with self_explained(self.address):
            return self._client.get_job_logs(id)

    def follow(self, id: str, write: Callable[[str], None]) -> JobDetails:
        """Hand what the job prints to `write`, from its first line on, until it has ended."""
        num_written = 0

        def write_new(text: str, begins_at: int) -> None:
            nonlocal num_written
            if new := text[max(0, num_written - begins_at) :]:
                write(new)
                num_written += len(new)

        self.job(id)
        while not (job := self._patiently(self.job, id)).status.is_terminal():
            try:
                asyncio.run(self._tail(id, write_new))
            except (RuntimeError, OSError, aiohttp.ClientError):  # it, or the way to it, broke off
                time.sleep(LOOK_EVERY_S)
        if job.driver_agent_http_address:  # else it never ran
            write_new(self._patiently(self.logs, id), 0)
        return job

    async def _tail(self, id: str, write_new: Callable[[str, int], None]) -> None:
        num_seen, texts = 0, aiter(self._client.tail_job_logs(id))
        with suppress(StopAsyncIteration):
            while True:  # a head that vanished with its network is silent too: ask anew
                text = await asyncio.wait_for(anext(texts), SILENT_S)
                write_new(text, num_seen)
                num_seen += len(text)

    def stop(self, id: str) -> bool:
        """Send the driver SIGTERM, upon which it drains; False if the job has ended before."""
        self.job(id)
        with self_explained(self.address):
            return self._client.stop_job(id)

    def wait(self, id: str) -> JobDetails:
        """The job, as soon as it has ended."""
        self.job(id)
        while not (job := self._patiently(self.job, id)).status.is_terminal():
            time.sleep(LOOK_EVERY_S)
        return job

    def _patiently(self, ask: Callable[[str], _Answer], id: str) -> _Answer:
        """`ask(id)` of a job that was there, again while the server may only be restarting."""
        give_up_s = time.monotonic() + GONE_AFTER_S
        while True:
            try:
                return ask(id)
            except ConfigError as error:
                raise EngineError(f"the cluster was started anew: {error}") from None
            except EngineError:
                if time.monotonic() > give_up_s:
                    raise
            time.sleep(LOOK_EVERY_S)


def exit_code_of(job: JobDetails) -> int:
    """The exit code for who waited for a job that has ended: the driver's own, where it had the last word."""
    code = job.driver_exit_code
    if code is not None and code in _OWN_CODES:
        return code
    never_ran = code in NO_COMMAND or job.error_type == "RUNTIME_ENV_SETUP_FAILURE"
    return ExitCode.USAGE if never_ran else ExitCode.INFRASTRUCTURE


def why_ended(job: JobDetails) -> str:
    """One line on how a job ended that did not end well by itself; empty for a driver that says so itself."""
    code = job.driver_exit_code
    if job.status is JobStatus.STOPPED:
        return "it was stopped; the same command resumes"
    if code in NO_COMMAND:
        return "the head could not start its command: name its Python with --python /opt/venv/bin/python"
    if code is not None and code not in _OWN_CODES:
        return f"its driver was killed or crashed (exit code {code}); the same command resumes"
    return _first_line(job.message) if code is None and job.message else ""


@contextmanager
def self_explained(address: str) -> Iterator[None]:
    """Ray's errors, which carry what the server said as text, become ours."""
    try:
        yield
    except RayError as error:  # the token was changed meanwhile
        raise ConfigError(f"{address} refuses: {_first_line(error)}") from None
    except RuntimeError as error:
        text = str(error)
        if "status code 404" in text:
            raise ConfigError(
                f"{text.partition(': ')[2].rstrip('.')} at {address}: `wanray job list` shows them"
            ) from None
        if "already exists" in text:
            raise ConfigError(
                f"a job of this id was submitted to {address} before: choose another --id, or leave it out"
            ) from None
        if "status code 400" in text:
            raise ConfigError(f"{address} refuses: {_last_line(text)}") from None
        raise EngineError(f"the job server {address} failed: {_last_line(text)}") from error
    except OSError as error:  # requests' and the builtin ConnectionError
        raise EngineError(
            f"the job server {address} does not answer any more: {_first_line(error)}"
        ) from error


def _checked(address: str) -> str:
    if address.startswith(("http://", "https://")) and urlsplit(address).hostname:
        return address.rstrip("/")
    raise ConfigError(
        f"--address must be the URL of the head's job server such as {EXAMPLE}, got {address!r}: "
        "neither host:6379, which drivers attach to, nor ray://"
    )


def _probe(address: str, headers: dict[str, str]) -> None:
    """Raise what a wrong address deserves."""
    try:
        answer = requests.get(f"{address}/api/version", headers=headers, timeout=PROBE_TIMEOUT_S)
    except requests.RequestException as error:
        raise EngineError(
            f"no job server answers at {address} ({type(error).__name__}): is the head up, is its dashboard "
            "open to this machine (--dashboard-host 0.0.0.0), and is this the dashboard's port, as in "
            f"{EXAMPLE}?"
        ) from error
    if answer.status_code == requests.codes.unauthorized:
        raise ConfigError(f"the cluster at {address} wants a token and none is at hand: {HOW}")
    if answer.status_code == requests.codes.forbidden:
        raise ConfigError(f"the cluster at {address} refuses the token at hand: {HOW}")
    if not answer.ok or "ray_version" not in answer.text:
        raise ConfigError(
            f"{address} answers, but is no job server of Ray (HTTP {answer.status_code}): name {EXAMPLE}"
        )


def _quieten() -> None:
    """Ray tells of every package that it looks at."""
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)


def _first_line(said: object) -> str:
    return (str(said).strip().splitlines() or [""])[0]


def _last_line(said: str) -> str:
    return said.strip().splitlines()[-1].rstrip(".")
