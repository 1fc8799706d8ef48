"""Which requests wait in front of which pool, as far as the pools have told.

News come late, and those of different pools in another order than things happened; `ts` is when they did, in
Unix seconds. What is wrong by that is right again when the request moves on. The caller locks.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence

from wanray.engine.visits import COMES_AGAIN

END = ""
"""The place behind all pools, where requests are until they are counted."""
REMEMBERED = 10_000
"""Requests that have ended, of which news may still be on their way."""


class Waiting:
    """Of one run; `pools` in the order of the data flow."""

    def __init__(self, pools: Sequence[str]) -> None:
        self._first = pools[0]
        self._next = dict(zip(pools, [*pools[1:], END], strict=True))
        self._places: dict[str, str] = {}
        """Key -> the pool in front of which it is; those that no pool has had yet are not here."""
        self._ended: OrderedDict[str, float] = OrderedDict()

    def taken(self, key: str) -> None:
        """A worker takes it up."""
        self._places.pop(key, None)

    def released(self, pool: str, key: str, outcome: str, ts: float) -> None:
        """A worker is through with it: it goes on, back to the queue where the worker died, or to the end."""
        if ts > self._ended.get(key, 0.0):
            places = {"done": self._next[pool], "lost": pool, COMES_AGAIN: pool}
            self._places[key] = places.get(outcome, END)

    def ended(self, key: str, ts: float) -> None:
        """It was counted, or begins anew."""
        self._places.pop(key, None)
        self._ended[key] = ts
        self._ended.move_to_end(key)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def counts(self, left: int, in_work: Collection[str]) -> Counter[str]:
        """Pool -> requests in front of it; who was not heard of waits for the first.

        left: all that have not ended. in_work: the keys that workers have.
        """
        told = {key: pool for key, pool in self._places.items() if key not in in_work}
        counts = Counter(told.values())
        counts[self._first] += max(0, left - len(told) - len(in_work))
        return counts
