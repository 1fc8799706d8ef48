"""Who is next: requests wait here for a place in the pools, by priority and then by arrival.

Knows neither Ray nor HTTP nor stores. For one event loop.
"""

import asyncio
import heapq
import itertools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from wanray.records import Record

logger = logging.getLogger(__name__)

REMEMBERED = 1000
"""Cancelled requests; of all others the store tells how they ended."""


class Status(StrEnum):
    """Of a request, in the words of the API."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FullError(Exception):
    """As many requests are open as may be."""


@dataclass(slots=True)
class _Ticket:
    record: Record
    is_waiting: bool = True
    is_cancelled: bool = False


class Desk:
    """The open requests of an endpoint.

    render: takes a record through all pools.
    end: told of each record that was rendered, and whether it was cancelled meanwhile.
    seats: records in the pools at a time. max_open: with those that wait.
    """

    def __init__(
        self,
        render: Callable[[Record], Awaitable[Record]],
        end: Callable[[Record, bool], Awaitable[None]],
        seats: int,
        max_open: int,
    ) -> None:
        self._render, self._end, self._free, self._max_open = render, end, seats, max_open
        self._open: dict[str, _Ticket] = {}
        self._waiting: list[tuple[int, int, _Ticket]] = []
        self._arrivals = itertools.count()
        self._cancelled: OrderedDict[str, Record] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self.error: BaseException | None = None
        """Why nothing can be rendered any more."""

    def __len__(self) -> int:
        return len(self._open)

    def open_keys(self) -> list[str]:
        """Of all open requests, those accepted first first."""
        return [*self._open]

    def admit(self, record: Record, *, beyond: bool = False) -> None:
        """Keep a place among the open ones, if need be `beyond` their number; `enqueue` or `forget` follows.

        Raises:
            FullError: there is none.
        """
        if len(self._open) >= self._max_open and not beyond:
            raise FullError(f"{len(self._open)} requests are open, as many as serve.max_open")
        self._cancelled.pop(record.key, None)
        self._open[record.key] = _Ticket(record)

    def enqueue(self, key: str, priority: int) -> bool:
        """Have an admitted request wait; higher priorities go first. False where it was cancelled."""
        if key not in self._open:
            return False
        heapq.heappush(self._waiting, (-priority, next(self._arrivals), self._open[key]))
        self._start()
        return True

    def forget(self, key: str) -> None:
        """Give the place of an admitted request back."""
        self._open.pop(key, None)

    def status(self, key: str) -> Status | None:
        """Of what is open or was cancelled; None: the store knows, if anybody."""
        if key in self._cancelled:
            return Status.CANCELLED
        if key not in self._open:
            return None
        return Status.QUEUED if self._open[key].is_waiting else Status.IN_PROGRESS

    def record(self, key: str) -> Record | None:
        """Of what is open or was cancelled."""
        return self._open[key].record if key in self._open else self._cancelled.get(key)

    def is_open(self, key: str) -> bool:
        """Whether it waits or is in the pools."""
        return key in self._open

    def cancel(self, key: str) -> bool:
        """Nobody wants it any more. True where it had not begun, so that it has ended; one that has begun
        is told to `end`.

        Raises:
            KeyError: it is not open.
        """
        ticket = self._open[key]
        ticket.is_cancelled = True
        self._cancelled[key] = ticket.record
        while len(self._cancelled) > REMEMBERED:
            self._cancelled.popitem(last=False)
        if ticket.is_waiting:
            del self._open[key]
        return ticket.is_waiting

    def is_cancelled(self, key: str) -> bool:
        """Whether a request that is still in the pools was cancelled."""
        return key in self._open and self._open[key].is_cancelled

    async def closed(self) -> None:
        """Begin no more; returns when what is in the pools has come back."""
        self._free = -len(self._open) - 1
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        while self.error is None and self._free > 0 and self._waiting:
            _, _, ticket = heapq.heappop(self._waiting)
            if self._open.get(ticket.record.key) is not ticket or not ticket.is_waiting:  # it was cancelled
                continue
            ticket.is_waiting = False
            self._free -= 1
            self._keep(self._work(ticket))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """An event loop alone lets go of tasks."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, ticket: _Ticket) -> None:
        try:
            record = await self._render(ticket.record)
            if record.clip is not None:  # it was as good as done when it was cancelled
                ticket.is_cancelled = False
                self._cancelled.pop(record.key, None)
            await self._end(record, ticket.is_cancelled)
        except Exception as error:
            logger.exception("request is left open key=%s", ticket.record.key)
            self.error = error
        finally:
            self._open.pop(ticket.record.key, None)
            self._free += 1
            self._start()
