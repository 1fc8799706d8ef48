"""Which request goes to which gang, and when. Knows neither Ray nor what a request is.

A request under which a gang died is a suspect. Suspects are tried one at a time, alone on their gang, and the
last gang that works is not risked for one while other requests wait: what kills whoever takes it costs one
gang at a time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from wanray.engine.visits import Turns


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """Of a request that waits for a gang."""

    visit: int
    answer: "asyncio.Future[int | None]"


class GangState(StrEnum):
    """What a gang can be asked for."""

    IDLE = "idle"
    BUSY = "busy"
    """Has a request in work, and perhaps seats for more."""
    DOWN = "down"
    """Dead, but coming back."""
    LOST = "lost"


class Dispatch:
    """Requests wait here for gangs, each of which has seats for so many at once. For one event loop.

    visits, in_a_row: as a `PoolSpec` has them.
    """

    def __init__(self, num_gangs: int, seats: int = 1, visits: int = 1, in_a_row: int = 1) -> None:
        self._states = [GangState.DOWN] * num_gangs
        self._loads = [0] * num_gangs
        self._seats = seats
        self._fresh: list[deque[Ticket]] = [deque() for _ in range(visits)]
        """By visit."""
        self._turns = Turns(num_gangs, in_a_row)
        self._suspects: deque[Ticket] = deque()
        self._trial: int | None = None
        self._closed = False

    async def take(self, suspect: bool, visit: int = 0) -> int | None:
        """The number of a gang, one of whose seats is now taken; None when no more requests are taken.

        visit: how often the request was here before.

        Raises:
            RuntimeError: all gangs are lost.
        """
        ticket = Ticket(visit, asyncio.get_running_loop().create_future())
        (self._suspects if suspect else self._fresh[visit]).append(ticket)
        self._match()
        return await ticket.answer

    def leave(self, gang: int) -> None:
        """A gang is through with one request."""
        self._loads[gang] -= 1
        if self._loads[gang]:
            self._match()
        else:
            self.change(gang, GangState.IDLE)

    def change(self, gang: int, state: GangState) -> None:
        """A gang came up, died or was given up; whatever it had in work is not there any more."""
        self._states[gang], self._loads[gang] = state, 0
        if state is GangState.DOWN:
            self._turns.begin_anew(gang)
        if self._trial == gang:
            self._trial = None
        self._match()

    def state(self, gang: int) -> GangState:
        """What a gang can be asked for now."""
        return self._states[gang]

    def load(self, gang: int) -> int:
        """Requests that a gang has in work."""
        return self._loads[gang]

    def close(self) -> None:
        """Take no more requests: those that wait get None."""
        self._closed = True
        self._match()

    def count(self, *states: GangState) -> int:
        """Gangs in one of these states."""
        return sum(state in states for state in self._states)

    def _match(self) -> None:
        if self._closed:
            self._answer_all(lambda ticket: ticket.answer.set_result(None))
        elif self.count(GangState.LOST) == len(self._states):
            self._answer_all(lambda ticket: ticket.answer.set_exception(RuntimeError("all gangs are lost")))
        while (pair := self._next()) is not None:
            queue, gang = pair
            ticket = queue.popleft()
            if ticket.answer.done():  # its request was cancelled
                continue
            self._states[gang] = GangState.BUSY
            self._loads[gang] += 1
            self._trial = gang if queue is self._suspects else self._trial
            self._turns.took(gang, ticket.visit)
            ticket.answer.set_result(gang)

    def _next(self) -> tuple[deque[Ticket], int] | None:
        """Who has its turn, and where: what has waited longest is a suspect, and needs a gang of its own."""
        kept_free = self._trial
        if self._suspects and self._trial is None and self._may_risk():
            kept_free = next(iter(self._emptiest()), None)
            if kept_free is not None and not self._loads[kept_free]:
                return self._suspects, kept_free
        waiting = [visit for visit, queue in enumerate(self._fresh) if queue]
        gangs = self._emptiest(kept_free)
        if not waiting or not gangs or self._loads[gangs[0]] >= self._seats:
            return None
        gang, visit = (gangs[0], 0) if len(self._fresh) == 1 else self._turns.choose(gangs, waiting)
        return self._fresh[visit], gang

    def _emptiest(self, but: int | None = None) -> list[int]:
        """The gangs that work and have the least in work."""
        up = (GangState.IDLE, GangState.BUSY)
        gangs = [gang for gang, state in enumerate(self._states) if state in up and gang != but]
        least = min((self._loads[gang] for gang in gangs), default=0)
        return [gang for gang in gangs if self._loads[gang] == least]

    def _may_risk(self) -> bool:
        usable = len(self._states) - self.count(GangState.LOST)
        return not any(self._fresh) or usable == 1 or self.count(GangState.IDLE, GangState.BUSY) > 1

    def _answer_all(self, answer: Callable[[Ticket], None]) -> None:
        for queue in (self._suspects, *self._fresh):
            while queue:
                if not (ticket := queue.popleft()).answer.done():
                    answer(ticket)
