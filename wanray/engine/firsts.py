"""Requests that share work: the first of each group goes alone, so that the others find what it made."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

KNOWN_GROUPS = 100_000


class Firsts:
    """For one event loop."""

    def __init__(self) -> None:
        self._going: dict[str, asyncio.Event] = {}
        self._known: OrderedDict[str, None] = OrderedDict()

    @asynccontextmanager
    async def turn(self, group: str) -> AsyncIterator[None]:
        """Wait while the first of `group` is in work; an empty group never waits."""
        while group in self._going:
            await self._going[group].wait()
        if not group or group in self._known:
            yield
            return
        self._going[group] = asyncio.Event()
        try:
            yield
        finally:
            self._known[group] = None
            if len(self._known) > KNOWN_GROUPS:
                self._known.popitem(last=False)
            self._going.pop(group).set()
