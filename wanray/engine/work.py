"""One record through one worker's stages: timed, and with every error turned into a failure.

This is the one place that catches everything: a bad row must never end a run.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wanray.errors import EngineError, FailureCause, FailureClass, StageError, Stopped
from wanray.records import STOPPED, FailedTry, Record
from wanray.stage import Report, StageSpec, Worker

logger = logging.getLogger(__name__)

MAX_CHARS = 2000
"""Of a message that somebody else wrote."""
DEVICE_MEMORY_ERROR = "OutOfMemoryError"
"""Class of torch's error; engines do not import torch."""
REMEDY = (
    "render fewer pixels or frames, give a rank more memory, or decode in tiles (numerics.vae_tiling=true, "
    "which is another key, or faults.tile_when_out_of_memory=true)"
)


class Chain:
    """The stages of one worker, built and set up."""

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self.names = [spec.name for spec in specs]
        self.stages: list[Any] = [spec.build() for spec in specs]

    def setup(self, worker: Worker) -> None:
        """Set up all stages, in order."""
        for stage in self.stages:
            stage.setup(worker)

    def run(self, record: Record, report: Report) -> Record:
        """The record after all stages; one that fails or is skipped passes the rest.

        Raises:
            EngineError: the worker can do no more; the record is not to blame and may go to another.
        """
        for name, stage in zip(self.names, self.stages, strict=True):
            record = _run_stage(name, stage, record, report)
        return record

    def close(self) -> None:
        """Close all stages, the last first."""
        for stage in reversed(self.stages):
            stage.close()


def _run_stage(name: str, stage: Any, record: Record, report: Report) -> Record:
    if not record.is_open:
        return record
    start = time.monotonic()
    try:
        result = stage.run(record, report)
    except Stopped:
        return record.skip(STOPPED)
    except StageError as error:
        logger.warning("stage failed key=%s stage=%s: %s", record.key, name, error)
        return record.failed(try_of(name, error))
    except Exception as error:
        logger.warning("stage failed key=%s stage=%s", record.key, name, exc_info=True)
        if not stage.healthy():
            raise EngineError(
                f"worker of stage {name} is broken by {type(error).__name__}: {error}"
            ) from error
        return record.failed(try_of(name, error))
    spent_s = result.timings_s.get(name, 0.0) + time.monotonic() - start  # a record may come twice
    return replace(result, timings_s=result.timings_s | {name: spent_s})


def outcome_of(record: Record) -> str:
    """How a record left a worker: `done`, `failed`, or one of `records.SKIPPED`."""
    return "failed" if record.failure is not None else record.skipped or "done"


def try_of(stage: str, error: BaseException) -> FailedTry:
    """What an error in `stage` means for the record."""
    if isinstance(error, StageError):
        message = str(error)
        return FailedTry(stage=stage, failure_class=error.failure_class, message=message, cause=error.cause)
    message = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_CHARS]
    if not isinstance(error, MemoryError) and type(error).__name__ != DEVICE_MEMORY_ERROR:
        return FailedTry(stage=stage, failure_class=FailureClass.MODEL, message=message)
    return FailedTry(
        stage=stage,
        failure_class=FailureClass.MODEL,
        message=f"{message}; {REMEDY}",
        cause=FailureCause.OUT_OF_MEMORY,
    )
