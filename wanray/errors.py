"""The exceptions that users meet, and how their texts are made fit to be shown.

    WanrayError
    +-- ConfigError(ValueError)    a configuration or command line that cannot be used
    +-- ManifestError(ValueError)  a manifest that cannot be read at all (bad rows become failures instead)
    +-- StorageError(OSError)      a store that cannot be read or written
    +-- StageError(RuntimeError)   what the world did to one request
    +-- Stopped                    a stage ended early because it was told to
    +-- EngineError(RuntimeError)  what the world did to the whole run

They cross process borders, so none has a constructor of its own: all pickle as they are.
"""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """How a command ends, for shells and job controllers."""

    DONE = 0
    """Everything is committed."""
    USAGE = 1
    """Wrong use: trying again without a change is useless."""
    FAILURES = 2
    """Finished; some requests have failure records."""
    INFRASTRUCTURE = 3
    """The same command may go on later."""
    INTERRUPTED = 130
    """By the user."""


class WanrayError(Exception):
    """Base of everything that wanray raises on purpose."""


class ConfigError(WanrayError, ValueError):
    """The user's configuration is wrong; the message names key, value, file and remedy."""


class ManifestError(WanrayError, ValueError):
    """The manifest as a whole cannot be used; the message names file, rule and remedy."""


class StorageError(WanrayError, OSError):
    """A store cannot be reached, read or written."""


class EngineError(WanrayError, RuntimeError):
    """The run cannot go on: not enough resources, or no worker could be started. Worth a retry."""


class FailureClass(StrEnum):
    """Who has to act before a failed request can succeed."""

    INPUT = "input"
    """The row is wrong: its author."""
    MODEL = "model"
    """The computation failed for this request: the user, with other parameters."""
    INFRASTRUCTURE = "infrastructure"
    """A process, node or store failed: nobody, a retry may do."""


class FailureCause(StrEnum):
    """What happened, where that decides what to try next."""

    ERROR = "error"
    """Anything that the message tells."""
    OUT_OF_MEMORY = "out_of_memory"
    """Of a device or of a process."""
    WORKER_DIED = "worker_died"
    STALLED = "stalled"
    """A worker made no progress and was killed."""
    PREEMPTED = "preempted"
    """Its node was about to go; its state moved on."""
    STORAGE = "storage"
    """A store could not be read or written."""


class Stopped(WanrayError):  # noqa: N818 - nothing went wrong
    """A stage was told to stop: the record is neither done nor failed, and its state is stored."""


class StageError(WanrayError, RuntimeError):
    """One request failed in a stage; class and cause say whose fault it was and what may help."""

    failure_class = FailureClass.MODEL
    cause = FailureCause.ERROR


class InputError(StageError):
    """The request itself cannot be rendered."""

    failure_class = FailureClass.INPUT


class InfrastructureError(StageError):
    """A store failed while the request was in work; what dies is noticed by those who watch it."""

    failure_class = FailureClass.INFRASTRUCTURE
    cause = FailureCause.STORAGE


def printable(text: str) -> str:
    """`text` with escapes for what would break a line of a log, or steer a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
