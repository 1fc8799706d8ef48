"""Which gang takes requests of which visit, where requests come to their pool more than once.

Between two visits a gang swaps what it holds, which takes a while, so it stays with one for as many requests
as wait, up to a bound: what has been begun shall also come to its end.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

COMES_AGAIN = "part done"
"""Outcome of a visit that is not the last."""


def outcome_of_visit(outcome: str, visit: int, num_visits: int) -> str:
    """What is told of a visit whose record left the worker so."""
    return COMES_AGAIN if outcome == "done" and visit + 1 < num_visits else outcome


@dataclass(slots=True)
class _Turn:
    """What one gang has done last."""

    visit: int = 0
    in_a_row: int = 0
    """Requests that it took at this visit since it turned to it."""


class Turns:
    """Of all gangs of a pool."""

    def __init__(self, num_gangs: int, in_a_row: int) -> None:
        self._turns = [_Turn() for _ in range(num_gangs)]
        self._in_a_row = in_a_row

    def choose(self, gangs: Sequence[int], waiting: Collection[int]) -> tuple[int, int]:
        """(gang, visit): one of `gangs`, which are free, and one of `waiting`, the visits for which requests
        wait; neither is empty. A gang that need not swap is preferred.
        """
        return min(
            ((gang, visit) for gang in gangs for visit in waiting), key=lambda pair: self._price(*pair)
        )

    def took(self, gang: int, visit: int) -> None:
        """The gang has got a request of this visit."""
        turn = self._turns[gang]
        turn.visit, turn.in_a_row = visit, 1 + (turn.in_a_row if turn.visit == visit else 0)

    def begin_anew(self, gang: int) -> None:
        """The gang is built again, and then holds what the first visit needs."""
        self._turns[gang] = _Turn()

    def _price(self, gang: int, visit: int) -> tuple[bool, int]:
        """What costs no swap comes first; when it is time to swap, what has waited since the last."""
        turn = self._turns[gang]
        stays = turn.visit == visit
        return stays == (turn.in_a_row >= self._in_a_row), -turn.in_a_row
