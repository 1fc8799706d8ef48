"""What a Ray error says about the request, the gang and its node."""

import re

from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from wanray.errors import FailureCause, FailureClass
from wanray.records import FailedTry

NAMED = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit): .")
EXIT_DETAIL = re.compile(r"Worker exit detail: (.*?)\. There are")
NODE_DIED = "node has died"
"""In the text of Ray's error for an actor that went down with its machine."""
NODE_LEFT = "node was terminated expectedly"
"""The same, where the machine was shut down in order: its raylet got SIGTERM, and its workers no time."""
LOW_MEMORY = "running low on memory"
"""In the text of Ray's errors for a process that was killed to save its machine."""


def failed_try(pool: str, error: RayError) -> FailedTry:
    """The try that ended in `error`; an infrastructure failure, whoever is to blame."""
    return FailedTry(
        stage=pool,
        failure_class=FailureClass.INFRASTRUCTURE,
        message=f"its worker died: {_detail(error)}",
        cause=_cause(error),
    )


def _cause(error: RayError) -> FailureCause:
    if isinstance(error, OutOfMemoryError) or LOW_MEMORY in str(error):
        return FailureCause.OUT_OF_MEMORY
    has_left = NODE_LEFT in str(error) or (isinstance(error, RayActorError) and error.preempted)
    return FailureCause.PREEMPTED if has_left else FailureCause.WORKER_DIED


def is_suspicious(error: Exception) -> bool:
    """Whether the request may have harmed its worker: not where a whole node went down."""
    if not isinstance(error, RayError):
        return True
    return NODE_DIED not in str(error) and _cause(error) is not FailureCause.PREEMPTED


def is_input_lost(error: RayError) -> bool:
    """Whether the request never reached the worker, because who held it is gone; the worker is well."""
    return isinstance(error, ObjectLostError) or (
        isinstance(error, RayTaskError) and isinstance(error.cause, ObjectLostError)
    )


def _detail(error: RayError) -> str:
    """What Ray knows of a death, without its guesses about the reasons."""
    found = EXIT_DETAIL.search(" ".join(str(error).split()))
    return found[1] if found else last_line(error)


def last_line(error: BaseException) -> str:
    """Class and the line of Ray's long text that names the first error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if NAMED.match(line) and "ray.exceptions" not in line]
    return (named or [f"{type(error).__name__}: {line}" for line in lines] or [type(error).__name__])[-1][
        :500
    ]
