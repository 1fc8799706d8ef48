"""The GangPool actor: hands requests to idle healthy gangs, and rebuilds gangs whose ranks died.

A request is never bound to a gang: when a rank dies under it, it goes to the next idle gang at once, up to
`max_attempts` times, while the broken gang is rebuilt in the background. The placement groups belong to the
driver, so nothing here can leak GPUs.
"""

import asyncio
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from wanray.engine.gang import Gang
from wanray.engine.pipeline import PoolSpec

REBUILD_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

Event = tuple[float, str, tuple[Any, ...]]
"""Unix seconds, name of a `Monitor` method, and its arguments without the pool."""

BUILD_ERRORS = (RayError, TimeoutError, OSError, RuntimeError, ValueError)
"""What building a gang may end in: ranks that die, weights that do not load, groups that are not placed."""


@ray.remote(num_cpus=0, max_restarts=0)
class GangPool:
    """Runs records on gangs. All methods are async on one event loop."""

    def __init__(
        self, pool: PoolSpec, groups: list[PlacementGroup], max_attempts: int, start_timeout_s: float
    ) -> None:
        self.pool, self.max_attempts, self.start_timeout_s = pool, max_attempts, start_timeout_s
        self.gangs = [Gang(worker, pool, group) for worker, group in enumerate(groups)]
        self.idle: asyncio.Queue[Gang] = asyncio.Queue()
        self.num_lost, self.why_lost, self.all_lost = 0, "", asyncio.Event()
        self.events: list[Event] = []
        self.rebuilds: set[asyncio.Task[None]] = set()
        self.myself = ray.get_runtime_context().current_actor

    async def start(self) -> None:
        """Build all gangs; raises the first error of one that cannot be built."""
        await asyncio.gather(*[self._build(gang) for gang in self.gangs])

    async def _build(self, gang: Gang) -> None:
        place = await gang.build(self.start_timeout_s)
        self._tell("gang_changed", gang.worker, "idle", place)
        self.idle.put_nowait(gang)

    async def run(self, ref: list[Any], key: str) -> tuple[list[Any], int, str]:
        """Render one record: ([reference to its table], attempts, error).

        After `max_attempts` deaths there is no reference.
        """
        error = ""
        for attempt in range(1, self.max_attempts + 1):
            gang = await self._next_alive()
            self._tell("dispatched", key, gang.worker, attempt)
            try:
                table, outcome = await gang.run(ref, attempt, self.myself)
            except RayError as caught:
                error = f"{type(caught).__name__}: {str(caught).strip().splitlines()[-1]}"
                self._tell("released", key, gang.worker, "lost")
                self._rebuild(gang, error)
                continue
            self._tell("released", key, gang.worker, outcome)
            self.idle.put_nowait(gang)
            return [table], attempt, ""
        return [], self.max_attempts, error

    async def _next_alive(self) -> Gang:
        """The next idle gang whose ranks answer; those that died meanwhile are rebuilt."""
        while not await (gang := await self._next_idle()).is_alive():
            self._rebuild(gang, "died while idle")
        return gang

    async def _next_idle(self) -> Gang:
        """The next idle gang; raises when there will never be one."""
        waiting = [asyncio.ensure_future(self.idle.get()), asyncio.ensure_future(self.all_lost.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting[0].done():
                return waiting[0].result()
            raise RuntimeError(f"all gangs of pool {self.pool.name} are lost: {self.why_lost}")
        finally:
            for task in waiting:
                task.cancel()

    def _rebuild(self, gang: Gang, reason: str) -> None:
        gang.kill()
        self._tell("gang_changed", gang.worker, "rebuilding", reason)
        task = asyncio.ensure_future(self._rebuild_until_done(gang))
        self.rebuilds.add(task)
        task.add_done_callback(self.rebuilds.discard)

    async def _rebuild_until_done(self, gang: Gang) -> None:
        """A node that died looks alive for a while, so a failed attempt is normal. A gang that cannot be
        built within the start timeout is given up.
        """
        pause_s, reason, deadline_s = REBUILD_PAUSE_S, "", time.monotonic() + self.start_timeout_s
        while time.monotonic() < deadline_s:
            try:
                return await self._build(gang)
            except BUILD_ERRORS as error:
                reason = f"{type(error).__name__}: {error}"[:500]
                self._tell("gang_changed", gang.worker, "rebuilding", reason)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._tell("gang_changed", gang.worker, "lost", reason)
        self.num_lost, self.why_lost = self.num_lost + 1, reason
        if self.num_lost == len(self.gangs):
            self.all_lost.set()
        return None

    async def stepped(self, worker: int, key: str, step: int, total: int) -> None:
        """A rank reports progress."""
        self._tell("stepped", worker, key, step, total)

    async def take_events(self) -> list["Event"]:
        """What happened since the last call."""
        events, self.events = self.events, []
        return events

    def _tell(self, event: str, *arguments: Any) -> None:
        self.events.append((time.time(), event, arguments))
