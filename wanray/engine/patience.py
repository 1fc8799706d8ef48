"""How long a silent worker is waited for: told by what earlier steps of the same shape took."""

from collections import defaultdict, deque
from statistics import median

from wanray.config import FaultsConfig

ENOUGH = 3
"""Steps that must have been timed before they are believed."""
REMEMBERED = 64
SHORTEST_S = 60.0
"""A pause of the whole machine is no hang."""


class Patience:
    """Measures steps and derives after which silence a worker hangs. A step may be a whole record.

    Not where requests share what was made of others (`is_even` is False): most take no time there, and one
    that is the first of its kind would look hung beside them.
    """

    def __init__(self, faults: FaultsConfig, is_even: bool = True) -> None:
        self._faults, self._is_even = faults, is_even
        self._steps_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def note(self, shape: str, step_s: float) -> None:
        """One step of a request of this shape took so long."""
        self._steps_s[shape].append(step_s)

    def limit_s(self, shape: str) -> float:
        """Seconds without a step after which a worker on such a request is taken for hung."""
        steps_s = self._steps_s[shape]
        if len(steps_s) < ENOUGH or not self._is_even:
            return self._faults.stall_s
        return max(min(SHORTEST_S, self._faults.stall_s), self._faults.stall_factor * median(steps_s))
