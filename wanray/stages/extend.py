"""Prompt extension. The only method so far is `none`: the prompt is rendered as written."""

from wanray.records import Record
from wanray.stage import Report, Worker
from wanray.stages.configs import ExtendConfig


class Extend:
    """Passes records through."""

    def __init__(self, config: ExtendConfig) -> None:
        self.config = config

    def setup(self, worker: Worker) -> None:
        """Nothing to load."""

    def run(self, record: Record, report: Report) -> Record:
        """The record, unchanged."""
        return record

    def healthy(self) -> bool:
        """Nothing can break."""
        return True

    def close(self) -> None:
        """Nothing to free."""
