"""What is done with the state of a request after each step: stored now and then, and before a stop."""

import logging

from wanray.errors import Stopped, StorageError
from wanray.models.ranks import Ranks
from wanray.models.state import DenoiseState
from wanray.stage import Report
from wanray.stages.states import States

logger = logging.getLogger(__name__)


class Saver:
    """Stores the state of one request as its steps are done; stops all ranks where the report asks for it.

    states: only rank 0 stores; None on the others.
    between: also store it where an expert has done its part: where they are swapped, many requests wait then.
    """

    def __init__(
        self,
        states: States | None,
        key: str,
        every: int,
        between: bool,
        total: int,
        report: Report,
        ranks: Ranks,
    ) -> None:
        self.states, self.key, self.every, self.between, self.total = states, key, every, between, total
        self.report, self.ranks = report, ranks
        self.stopping = False

    def stops_after(self, state: DenoiseState) -> bool:
        """Called after each step."""
        self.stopping = bool(self.ranks.from_first(self.report(state.step, self.total)))
        if self.states and self.every and state.step % self.every == 0 and not self.stopping:
            self.states.save_soon(self.key, state)
        return self.stopping

    def expert_done(self, state: DenoiseState) -> None:
        """Called when an expert has no more steps, or was stopped: then the state is safe before Stopped."""
        is_over = state.step == self.total
        if self.states and is_over:
            self.states.end(self.key)
        elif self.states and self.stopping:
            self._save(self.states, state)
        elif self.states and self.between:
            self.states.save_soon(self.key, state)
        if self.stopping and not is_over:
            raise Stopped(f"{self.key} was stopped after step {state.step}")

    def _save(self, states: States, state: DenoiseState) -> None:
        try:
            states.save(self.key, state)
        except StorageError as error:
            logger.warning("state of %s at step %d is lost: %s", self.key, state.step, error)
