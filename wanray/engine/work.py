"""One record through one worker's stages: timed, and with every error turned into a failure.

This is the one place that catches everything: a bad row must never end a run.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wanray.errors import EngineError, FailureClass, StageError
from wanray.records import Failure, Record
from wanray.stage import Report, StageSpec, Worker

logger = logging.getLogger(__name__)


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
        """The record after all stages; one that fails passes the rest.

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
    if record.failure is not None:
        return record
    start = time.monotonic()
    try:
        result = stage.run(record, report)
    except StageError as error:
        logger.warning("stage failed key=%s stage=%s: %s", record.key, name, error)
        return record.failed(failure_of(name, error, record.attempts))
    except Exception as error:
        logger.warning("stage failed key=%s stage=%s", record.key, name, exc_info=True)
        if not stage.healthy():
            raise EngineError(
                f"worker of stage {name} is broken by {type(error).__name__}: {error}"
            ) from error
        return record.failed(failure_of(name, error, record.attempts))
    return replace(result, timings_s=result.timings_s | {name: time.monotonic() - start})


def failure_of(stage: str, error: BaseException, attempts: int) -> Failure:
    """The failure record of an error in `stage`."""
    if isinstance(error, StageError):
        return Failure(stage=stage, failure_class=error.failure_class, message=str(error), attempts=attempts)
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Failure(stage=stage, failure_class=FailureClass.MODEL, message=message[:2000], attempts=attempts)
