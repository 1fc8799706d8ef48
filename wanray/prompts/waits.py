"""How long to wait before a request: between tries, as a server wishes, and under a limit per minute."""

import random
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 60.0
"""Whatever a server asks for."""
_FIRST_PAUSE_S = 1.0


def pause_s(num_failed: int, wish_s: float = 0.0) -> float:
    """Seconds before the next try: doubled each time, less up to half of it by chance, at least `wish_s`.

    num_failed: tries so far, at least 1.
    """
    grown_s = min(_FIRST_PAUSE_S * 2.0 ** (num_failed - 1), MAX_WAIT_S)
    return max(grown_s * random.uniform(0.5, 1.0), min(wish_s, MAX_WAIT_S))


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that the Retry-After of an answer asks for (RFC 9110, 10.2.3); 0.0 where it tells nothing.

    A date is compared with the answer's own Date, so that clocks may differ.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    until, now = _date(value), _date(headers.get("Date", ""))
    return max(0.0, (until - now).total_seconds()) if until and now else 0.0


def _date(value: str) -> datetime | None:
    try:
        return parsedate_to_datetime(value).astimezone()
    except (ValueError, OverflowError):
        return None


class Pace:
    """Keeps requests, of any number of threads, one interval apart."""

    def __init__(
        self, per_minute: float | None, sleep: Callable[[float], object], clock: Callable[[], float]
    ) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._free_s = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may start."""
        with self._lock:
            now_s = self._clock()
            wait_s = max(0.0, self._free_s - now_s)
            self._free_s = now_s + wait_s + self._interval_s
        if wait_s:
            self._sleep(wait_s)
