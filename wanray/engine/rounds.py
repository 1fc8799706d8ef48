"""What becomes of a record that leaves the last stage: it is finished, or it gets another round."""

import logging
from collections.abc import Callable, Sequence
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.config import FaultsConfig
from wanray.engine.monitor import Monitor
from wanray.errors import EngineError, FailureClass
from wanray.records import CLAIMED, STOPPED, Record
from wanray.storage import Store

logger = logging.getLogger(__name__)

Finish = Callable[[Record], None]
Run = Callable[[Sequence[str], Finish], None]
"""`run(parts, finish)`: `finish` gets each record of the plan files when it has left the last stage."""


class Rounds:
    """Puts off what may pass, and ends a run that only burns GPU hours."""

    def __init__(self, monitor: Monitor, faults: FaultsConfig) -> None:
        self._monitor, self._faults = monitor, faults
        self._round = 0
        self._put_off: list[Record] = []
        self._failed_in_a_row = 0

    def finish(self, record: Record) -> None:
        """Take a record that left the last stage.

        Raises:
            EngineError: too many in a row failed for reasons of infrastructure.
        """
        self._monitor.arrived(record)
        if record.skipped == STOPPED:  # it is simply left to the next run
            return
        may_pass = record.skipped == CLAIMED or (record.failure is not None and record.failure.retryable)
        if may_pass and self._round < self._faults.max_rounds:
            self._put_off.append(record.fresh())
            self._monitor.put_off(record)
        else:
            self._monitor.finished(record)
        self._count(record)

    def next_parts(self, store: Store) -> list[str]:
        """Begin the next round; returns its plan file, or nothing where nothing was put off."""
        if not self._put_off:
            return []
        self._round += 1
        path = f"runs/{self._monitor.run}/plan/round-{self._round}.parquet"
        logger.info("round %d: %d requests are tried again", self._round, len(self._put_off))
        sink = BytesIO()
        pq.write_table(pa.concat_tables([record.to_table() for record in self._put_off]), sink)
        store.write(path, sink.getvalue())
        self._put_off.clear()
        return [path]

    def _count(self, record: Record) -> None:
        failure = record.failure
        if failure is None or failure.failure_class is not FailureClass.INFRASTRUCTURE:
            self._failed_in_a_row = 0 if record.clip is not None else self._failed_in_a_row
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row == self._faults.stop_after:
            raise EngineError(
                f"{self._failed_in_a_row} requests in a row failed for reasons of infrastructure "
                f"(faults.stop_after), the last in {failure.stage}: {failure.message}; "
                "mend that, and the same command resumes"
            )
