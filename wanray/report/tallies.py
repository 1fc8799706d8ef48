"""Sums over a run of any length in memory of a fixed size. Knows numbers only."""

import math
from collections import Counter
from collections.abc import Iterable

MAX_BINS = 512
FIRST_WIDTH_S = 0.125
_PER_OCTAVE = 8


class TimeBins:
    """Something per stretch of time; stretches double as time goes on, so that there are at most MAX_BINS."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self.width_s = FIRST_WIDTH_S
        self._values: list[float] = []

    def count(self, moment_s: float) -> None:
        """One thing that happened then; what was before the start counts as at the start."""
        index = self._index(moment_s)
        self._values[index] += 1

    def cover(self, start_s: float, end_s: float) -> None:
        """Add to each stretch how many seconds of it lie between."""
        last = self._index(end_s)
        for index in range(self._index(start_s), last + 1):
            left_s = self._start_s + index * self.width_s
            self._values[index] += max(0.0, min(end_s, left_s + self.width_s) - max(start_s, left_s))

    def values(self, width_s: float) -> list[float]:
        """What was added up, in stretches of `width_s`: this one's width times a power of two."""
        step = round(width_s / self.width_s)
        return [sum(self._values[first : first + step]) for first in range(0, len(self._values), step)]

    def _index(self, moment_s: float) -> int:
        offset_s = max(0.0, moment_s - self._start_s)
        while offset_s >= self.width_s * MAX_BINS:
            self._values = self.values(2 * self.width_s)
            self.width_s *= 2
        index = int(offset_s / self.width_s)
        self._values += [0.0] * (index + 1 - len(self._values))
        return index


class Distribution:
    """How long something took: exact sums, and a histogram whose buckets are 9 % wide."""

    def __init__(self, values_s: Iterable[float] = ()) -> None:
        self._buckets: Counter[int] = Counter()
        self.count, self.sum_s, self.max_s = 0, 0.0, 0.0
        for value_s in values_s:
            self.add(value_s)

    def add(self, value_s: float) -> None:
        """One more; nothing is shorter than a millisecond."""
        self._buckets[math.floor(math.log2(max(value_s, 0.001)) * _PER_OCTAVE)] += 1
        self.count, self.sum_s, self.max_s = self.count + 1, self.sum_s + value_s, max(self.max_s, value_s)

    def quantile_s(self, share: float) -> float:
        """To within its bucket, so to about 4 %; 0 where nothing was added."""
        seen = 0
        for bucket, number in sorted(self._buckets.items()):
            seen += number
            if seen >= share * self.count:
                return min(self.max_s, 2 ** ((bucket + 0.5) / _PER_OCTAVE))
        return 0.0

    def buckets(self) -> list[tuple[float, int]]:
        """(lower bound in seconds, how many), of those that are not empty."""
        return [(2 ** (bucket / _PER_OCTAVE), number) for bucket, number in sorted(self._buckets.items())]
