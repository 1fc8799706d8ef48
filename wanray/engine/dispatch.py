"""Which request goes to which gang, and when. Knows neither Ray nor what a request is.

A request under which a gang died is a suspect. Suspects are tried one at a time, and the last gang that
works is not risked for one while other requests wait: what kills whoever takes it costs one gang at a time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import StrEnum

Seat = asyncio.Future[int | None]


class GangState(StrEnum):
    """What a gang can be asked for."""

    IDLE = "idle"
    BUSY = "busy"
    DOWN = "down"
    """Dead, but coming back."""
    LOST = "lost"


class Dispatch:
    """Requests wait here for gangs. For one event loop."""

    def __init__(self, num_gangs: int) -> None:
        self._states = [GangState.DOWN] * num_gangs
        self._fresh: deque[Seat] = deque()
        self._suspects: deque[Seat] = deque()
        self._trial: int | None = None
        self._closed = False

    async def take(self, suspect: bool) -> int | None:
        """The number of a gang, which is now busy; None when no more requests are taken.

        Raises:
            RuntimeError: all gangs are lost.
        """
        seat: Seat = asyncio.get_running_loop().create_future()
        (self._suspects if suspect else self._fresh).append(seat)
        self._match()
        return await seat

    def change(self, gang: int, state: GangState) -> None:
        """A gang is through with its request, died, came back or was given up."""
        self._states[gang] = state
        if self._trial == gang:
            self._trial = None
        self._match()

    def state(self, gang: int) -> GangState:
        """What a gang can be asked for now."""
        return self._states[gang]

    def close(self) -> None:
        """Take no more requests: those that wait get None."""
        self._closed = True
        self._match()

    def count(self, *states: GangState) -> int:
        """Gangs in one of these states."""
        return sum(state in states for state in self._states)

    def _match(self) -> None:
        if self._closed:
            self._answer_all(lambda seat: seat.set_result(None))
        elif self.count(GangState.LOST) == len(self._states):
            self._answer_all(lambda seat: seat.set_exception(RuntimeError("all gangs are lost")))
        while GangState.IDLE in self._states and (queue := self._next()) is not None:
            seat = queue.popleft()
            if seat.done():  # its request was cancelled
                continue
            gang = self._states.index(GangState.IDLE)
            self._states[gang] = GangState.BUSY
            self._trial = gang if queue is self._suspects else self._trial
            seat.set_result(gang)

    def _next(self) -> deque[Seat] | None:
        """The queue whose first request has its turn: what has waited longest is a suspect's."""
        if self._suspects and self._trial is None and self._may_risk():
            return self._suspects
        return self._fresh or None

    def _may_risk(self) -> bool:
        usable = len(self._states) - self.count(GangState.LOST)
        return not self._fresh or usable == 1 or self.count(GangState.IDLE, GangState.BUSY) > 1

    def _answer_all(self, answer: Callable[[Seat], None]) -> None:
        for queue in (self._suspects, self._fresh):
            while queue:
                if not (seat := queue.popleft()).done():
                    answer(seat)
