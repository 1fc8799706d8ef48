"""The gangs of a pool: built, rebuilt where ranks died, moved off nodes that are about to go, given up."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from wanray.config import FaultsConfig
from wanray.engine.deaths import last_line
from wanray.engine.dispatch import Dispatch, GangState
from wanray.engine.gang import Gang
from wanray.engine.pipeline import PoolSpec
from wanray.errors import ConfigError, FailureCause
from wanray.records import STOPPED, FailedTry

REBUILD_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
FIRST_BUILDS = 3
"""Times that a gang is built before the run begins, if its ranks die while they load."""

LEAVING = "its node is being drained"

BUILD_ERRORS = (RayError, TimeoutError, OSError, RuntimeError, ValueError)
"""What building a gang may end in: ranks that die, weights that do not load, groups that are not placed."""


class Lease(NamedTuple):
    """A request's seat on a gang."""

    gang: Gang
    num_ends: int
    """Of the gang, when the seat was taken."""

    @property
    def is_over(self) -> bool:
        """Whether the ranks that had the request have ended since."""
        return self.gang.num_ends != self.num_ends


class Fleet:
    """For one event loop, that of the pool's actor. `tell(event, *arguments)` passes news on."""

    def __init__(
        self, pool: PoolSpec, faults: FaultsConfig, start_timeout_s: float, tell: Callable[..., None]
    ) -> None:
        self._pool, self._faults, self._start_timeout_s, self._tell = pool, faults, start_timeout_s, tell
        self._gangs: list[Gang] = []
        self._groups: list[PlacementGroup] = []
        """Where each gang shall be; where it is stands with the gang."""
        self._placed = asyncio.Event()
        self._starting: asyncio.Task[None]
        self._dispatch = Dispatch(pool.num_workers, pool.concurrency, pool.visits, pool.in_a_row)
        self._builds: dict[int, asyncio.Task[None]] = {}
        self.is_stopping, self._why_lost = False, ""

    def place(self, groups: Sequence[PlacementGroup]) -> None:
        """Have the gangs on `groups`: build them there at first; later, move those that are elsewhere, with
        the states of what they have in work.
        """
        if not self._placed.is_set():
            self._groups = list(groups)
            self._gangs = [Gang(worker, self._pool, group) for worker, group in enumerate(groups)]
            self._starting = asyncio.ensure_future(self._start())
            self._placed.set()
        for gang, group in zip(self._gangs, groups, strict=True):
            if self._groups[gang.worker].id == group.id:
                continue
            self._groups[gang.worker] = group
            state = self._dispatch.state(gang.worker)
            if state is GangState.BUSY:
                gang.stop()
            elif state is GangState.IDLE or (state is GangState.DOWN and gang.worker in self._builds):
                self.rebuild(gang, LEAVING)

    async def ready(self) -> None:
        """Returns when each gang was built, or tried, and one can work; raises the first error otherwise."""
        await self._placed.wait()
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        results = await asyncio.gather(*map(self._first_build, self._gangs), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        wrong = [error for error in errors if isinstance(error, ConfigError)]
        if wrong or len(errors) == len(self._gangs):
            for gang in self._gangs:
                gang.kill()
                self._lose(gang, last_line((wrong or errors)[0]))
            raise (wrong or errors)[0]
        for gang, result in zip(self._gangs, results, strict=True):
            if result is not None:
                self.rebuild(gang, last_line(result))

    async def _first_build(self, gang: Gang) -> None:
        for builds_left in reversed(range(FIRST_BUILDS)):
            try:
                return await self._build(gang)
            except RayActorError as error:
                if not builds_left or error.actor_init_failed:
                    raise
        return None

    async def _build(self, gang: Gang) -> None:
        place = await gang.build(self._start_timeout_s)
        self._tell("gang_changed", gang.worker, "idle", place)
        if self._must_move(gang):
            self.rebuild(gang, LEAVING)
        else:
            self._dispatch.change(gang.worker, GangState.IDLE)

    async def take(self, suspect: bool, visit: int) -> Lease | None:
        """A seat on the next gang whose ranks answer; None when the run stops. The dead are rebuilt.

        Raises:
            RuntimeError: all gangs are lost.
        """
        while True:
            try:
                number = await self._dispatch.take(suspect, visit)
            except RuntimeError:
                lost = f"all gangs of pool {self._pool.name} are lost: {self._why_lost}"
                raise RuntimeError(lost) from None
            if number is None:
                return None
            gang = self._gangs[number]
            lease = Lease(gang, gang.num_ends)
            is_alive = self._dispatch.load(number) > 1 or await gang.is_alive()
            if is_alive and not lease.is_over:
                return lease
            if not lease.is_over:
                self.rebuild(gang, "died while idle")

    def give_back(self, lease: Lease, outcome: str, tried: FailedTry | None) -> None:
        """The gang is through with a request that did not kill it."""
        gang = lease.gang
        if lease.is_over:
            return
        if outcome == "done":
            gang.victims.clear()
        if tried is not None and tried.cause is FailureCause.OUT_OF_MEMORY:
            self.rebuild(gang, "out of memory: what it holds is given back")
        elif outcome == STOPPED and not self.is_stopping:
            self.rebuild(gang, LEAVING)
        else:
            self.leave(lease)

    def leave(self, lease: Lease) -> None:
        """The seat is free again."""
        if lease.is_over:
            return
        if self._must_move(lease.gang):
            self.rebuild(lease.gang, LEAVING)
        else:
            self._dispatch.leave(lease.gang.worker)

    def _must_move(self, gang: Gang) -> bool:
        return self._groups[gang.worker].id != gang.group.id

    def rebuild(self, gang: Gang, reason: str, victim: str = "", *, has_died: bool = False) -> None:
        """Kill what is left of a gang and build it again, unless it dies under whatever it is given."""
        gang.kill()
        gang.has_died = has_died
        gang.victims |= {victim} - {""}
        if len(gang.victims) >= self._faults.max_builds:
            self._lose(gang, f"it died under {len(gang.victims)} requests in a row, at last: {reason}")
            return
        self._dispatch.change(gang.worker, GangState.DOWN)
        self._tell("gang_changed", gang.worker, "rebuilding", reason)
        if not self.is_stopping:
            self._move(gang)
            former = self._builds.get(gang.worker)
            if former is not None and former is not asyncio.current_task():
                former.cancel()
            self._builds[gang.worker] = asyncio.ensure_future(self._build_until_done(gang, former))

    def _move(self, gang: Gang) -> None:
        """Give up the place that a dead gang had, if it shall have another."""
        if self._must_move(gang):
            remove_placement_group(gang.group)
            gang.group = self._groups[gang.worker]

    async def _build_until_done(self, gang: Gang, former: "asyncio.Task[None] | None") -> None:
        """A node that died looks alive for a while, so a failed attempt is normal. A gang that cannot be
        built within the start timeout is given up.
        """
        if former is not None:
            await asyncio.wait({former})  # it still kills what it has built
        pause_s, reason, deadline_s = REBUILD_PAUSE_S, "", time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline_s:
            try:
                return await self._build(gang)
            except BUILD_ERRORS as error:
                reason = f"{type(error).__name__}: {error}"[:500]
                self._tell("gang_changed", gang.worker, "rebuilding", reason)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return self._lose(gang, reason)

    def _lose(self, gang: Gang, reason: str) -> None:
        self._why_lost = reason
        self._tell("gang_changed", gang.worker, "lost", reason)
        self._dispatch.change(gang.worker, GangState.LOST)

    def stop(self) -> None:
        """Hand out no more gangs; requests in work store their state, or end where that is as quick."""
        self.is_stopping = True
        self._dispatch.close()
        for gang in self._gangs:
            gang.stop()

    def kill(self) -> None:
        """End all ranks."""
        for gang in self._gangs:
            gang.kill()
