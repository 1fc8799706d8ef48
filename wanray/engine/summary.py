"""How a run ended."""

import json
from dataclasses import asdict, dataclass

from wanray.engine.monitor import Monitor
from wanray.errors import ExitCode


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Also `runs/<run>/summary.json`."""

    run: str
    committed: int
    failed: int
    invalid: int
    skipped: int
    """Committed before this run, or left to others meanwhile."""
    failed_before: int
    """Left alone, because they failed in an earlier run (`--retry-failed`)."""
    failed_by_class: dict[str, int]
    seconds: float
    exit_code: int
    error: str = ""
    """What ended the run early."""

    @staticmethod
    def of(monitor: Monitor) -> "Summary":
        """Of a run that came to its end, and had no plan."""
        return Summary(
            run=monitor.run,
            committed=monitor.committed,
            failed=monitor.failed,
            invalid=0,
            skipped=monitor.left_to_others.total(),
            failed_before=0,
            failed_by_class={str(name): number for name, number in monitor.failed_by_class.items() if number},
            seconds=round(monitor.elapsed_s, 3),
            exit_code=ExitCode.DONE,
        )


def conclude(monitor: Monitor, summary: Summary) -> None:
    """Say and store how the run of `monitor` ended.

    Raises:
        StorageError: it could not be stored.
    """
    monitor.events.emit("run_finished", **asdict(summary))
    content = json.dumps(asdict(summary), indent=1).encode()
    monitor.ledger.store.write(f"runs/{summary.run}/summary.json", content)
