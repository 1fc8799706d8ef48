"""A stage that only waits: what remains of a pipeline's time is overhead."""

import time
from dataclasses import dataclass, field, replace

from wanray.records import Clip, Record
from wanray.stage import Report, Worker


@dataclass(frozen=True, kw_only=True, slots=True)
class SleepConfig:
    """name: key under which start and end are noted.

    seconds: of every record, or of those whose number of frames is not in by_frames. setup_s: of loading.
    last: the record ends here.
    """

    name: str
    seconds: float
    by_frames: dict[int, float] = field(default_factory=dict)
    setup_s: float = 0.0
    last: bool = False


class Sleep:
    """Waits, and notes in `topology` when it began and ended (Unix seconds)."""

    def __init__(self, config: SleepConfig) -> None:
        self.config = config

    def setup(self, worker: Worker) -> None:
        """As if weights were loaded."""
        time.sleep(self.config.setup_s)

    def run(self, record: Record, report: Report) -> Record:
        """Wait."""
        start = time.time()
        time.sleep(self.config.by_frames.get(record.request.num_frames, self.config.seconds))
        times = {self.config.name: [start, time.time()]}
        clip = Clip(path="", sha256="", bytes=0, codec="", width=0, height=0, num_frames=0, fps=1.0)
        return replace(record, topology=record.topology | times, clip=clip if self.config.last else None)

    def healthy(self) -> bool:
        """Nothing can break."""
        return True

    def close(self) -> None:
        """Nothing to free."""
