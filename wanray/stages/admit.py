"""Asks, before anything is paid for, whether a request is still to be rendered by this run."""

from wanray.errors import InfrastructureError, StorageError
from wanray.records import CLAIMED, COMMITTED, Record
from wanray.sinks.claims import Claims
from wanray.sinks.ledger import Ledger
from wanray.stage import Report, Worker
from wanray.stages.configs import AdmitConfig
from wanray.storage import Store


class Admit:
    """Lets pass what nobody else has committed or, with `claim`, holds."""

    def __init__(self, config: AdmitConfig) -> None:
        self.config = config

    def setup(self, worker: Worker) -> None:
        """Open the store."""
        self.ledger = Ledger(Store.open(self.config.output_url))
        self.claims = Claims(self.ledger.store, self.config.run, self.config.claim_expires_s)

    def run(self, record: Record, report: Report) -> Record:
        """The record, skipped where it is not ours to render."""
        try:
            if self.ledger.is_committed(record.key):
                return record.skip(COMMITTED)
            if self.config.claim and self.claims.take(record.key) is not None:
                return record.skip(CLAIMED)
            # a commit in between has removed the claim that stood in our way
            if self.config.claim and self.ledger.is_committed(record.key):
                self.ledger.clear_work(record.key)
                return record.skip(COMMITTED)
        except StorageError as error:
            raise InfrastructureError(str(error)) from error
        return record

    def healthy(self) -> bool:
        """Nothing can break."""
        return True

    def close(self) -> None:
        """Nothing to free."""
