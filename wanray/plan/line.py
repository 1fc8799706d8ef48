"""How long a line of pools takes for a list of requests: a tandem queue with bounded room in front of each.

Knows numbers only. Requests keep their order, each worker has one at a time, and a worker takes up no more
while the room in front of the next pool is full, as the engine's back pressure has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import accumulate, pairwise

MAX_SIMULATED = 4000
"""Of more requests this many are simulated; the rest takes what it takes at the slowest pool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Station:
    """One pool of the line."""

    num_workers: int
    num_waiting: int
    """Requests that may wait in front of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Requests that follow each other and take equally long."""

    num_requests: int
    seconds: tuple[float, ...]
    """Of a worker, at each station."""

    def interval_s(self, stations: Sequence[Station]) -> float:
        """Between two of them in steady state: that of the slowest station."""
        pairs = zip(self.seconds, stations, strict=True)
        return max(seconds / station.num_workers for seconds, station in pairs)


def line_s(stations: Sequence[Station], batches: Sequence[Batch]) -> float:
    """Seconds from the start of the first request to the end of the last."""
    left = [batch.num_requests for batch in batches]
    simulated = _shares(left, MAX_SIMULATED)
    rest = sum(
        (number - taken) * batch.interval_s(stations)
        for batch, number, taken in zip(batches, left, simulated, strict=True)
    )
    return rest + _simulate(stations, list(zip(simulated, batches, strict=True)))


def _shares(numbers: Sequence[int], most: int) -> list[int]:
    """The numbers, or parts of them in about the same ratio that come to no more than `most`."""
    total = sum(numbers)
    if total <= most:
        return list(numbers)
    ends = [end * most // total for end in accumulate(numbers)]
    return [end - start for start, end in pairwise([0, *ends])]


def _simulate(stations: Sequence[Station], batches: Sequence[tuple[int, Batch]]) -> float:
    free = [[0.0] * station.num_workers for station in stations]
    begun: list[list[float]] = [[] for _ in stations]
    rooms = [here.num_workers + after.num_waiting for here, after in pairwise(stations)]
    end_s = 0.0
    for number, batch in batches:
        for _ in range(number):
            ready_s = 0.0
            for index, seconds in enumerate(batch.seconds):
                start_s = max(ready_s, free[index][0])
                if index < len(rooms) and len(begun[index]) >= rooms[index]:
                    start_s = max(start_s, begun[index + 1][-rooms[index]])
                ready_s = start_s + seconds
                heapreplace(free[index], ready_s)
                begun[index].append(start_s)
            end_s = max(end_s, ready_s)
    return end_s
