"""The GangPool actor: hands requests to idle healthy gangs, and rebuilds gangs whose ranks died or hang.

A request is never bound to a gang: when a rank dies under it, it goes to the next one (`dispatch` says when),
up to `faults.max_attempts` times, while the broken gang is rebuilt in the background. The placement groups
belong to the driver, so nothing here can leak GPUs. The actor itself may die: Ray starts it again, its ranks
go down with it, and those who wait for a request ask again.
"""

import asyncio
import random
import time
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup

from wanray.config import FaultsConfig
from wanray.engine.deaths import failed_try, is_input_lost, is_suspicious, last_line
from wanray.engine.dispatch import Dispatch, GangState
from wanray.engine.gang import Gang, RankFailedError
from wanray.engine.patience import Patience
from wanray.engine.pipeline import PoolSpec
from wanray.errors import ConfigError, FailureCause, FailureClass
from wanray.records import STOPPED, FailedTry

REBUILD_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
POLL_S = 0.5
FIRST_BUILDS = 3
"""Times that a gang is built before the run begins, if its ranks die while they load."""

LEAVING = "its node is being drained"

Event = tuple[float, str, tuple[Any, ...]]
"""Unix seconds, name of a `Monitor` method, and its arguments without the pool."""

BUILD_ERRORS = (RayError, TimeoutError, OSError, RuntimeError, ValueError)
"""What building a gang may end in: ranks that die, weights that do not load, groups that are not placed."""


class Verdict(NamedTuple):
    """What became of a request in this pool."""

    table: list[Any]
    """Reference to its record; empty where there is none: the tries say why, or the run is stopping."""
    tries: list[FailedTry]


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class GangPool:
    """Runs records on gangs. All methods are async on one event loop."""

    def __init__(
        self, pool: PoolSpec, groups: list[PlacementGroup], faults: FaultsConfig, start_timeout_s: float
    ) -> None:
        self.pool, self.faults, self.start_timeout_s = pool, faults, start_timeout_s
        self.gangs = [Gang(worker, pool, group) for worker, group in enumerate(groups)]
        self.dispatch, self.patience = Dispatch(len(groups)), Patience(faults)
        self.progress = [_Progress() for _ in groups]
        self.inputs: dict[str, list[Any]] = {}
        self.work: dict[str, asyncio.Task[Verdict]] = {}
        self.starting: asyncio.Task[None] | None = None
        self.stopping, self.why_lost = False, ""
        self.events: list[Event] = []
        self.rebuilds: set[asyncio.Task[None]] = set()
        self.myself = ray.get_runtime_context().current_actor

    async def start(self) -> None:
        """Build all gangs; returns when each was tried and one can work, raises the first error otherwise."""
        if self.starting is None:
            self.starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self.starting)

    async def _start(self) -> None:
        results = await asyncio.gather(*map(self._first_build, self.gangs), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        wrong = [error for error in errors if isinstance(error, ConfigError)]
        if wrong or len(errors) == len(self.gangs):
            raise (wrong or errors)[0]
        for gang, result in zip(self.gangs, results, strict=True):
            if result is not None:
                self._rebuild(gang, last_line(result))

    async def _first_build(self, gang: Gang) -> None:
        for builds_left in reversed(range(FIRST_BUILDS)):
            try:
                return await self._build(gang)
            except RayActorError as error:
                if not builds_left or error.actor_init_failed:
                    raise
        return None

    async def _build(self, gang: Gang) -> None:
        place = await gang.build(self.start_timeout_s)
        self._tell("gang_changed", gang.worker, "idle", place)
        self.dispatch.change(gang.worker, GangState.IDLE)

    async def run(self, ref: list[Any], key: str, shape: str) -> Verdict:
        """Render one record. Who asks for a key that is in work, after a crash of its own, waits for that."""
        await self.start()
        self.inputs[key] = ref
        if key not in self.work:
            self.work[key] = asyncio.ensure_future(self._run(key, shape))
            self.work[key].add_done_callback(lambda _: (self.work.pop(key), self.inputs.pop(key)))
        return await asyncio.shield(self.work[key])

    async def _run(self, key: str, shape: str) -> Verdict:
        tries: list[FailedTry] = []
        suspect = False
        while (gang := await self._next_alive(suspect)) is not None:
            self._tell("dispatched", key, gang.worker, len(tries) + 1)
            try:
                table, outcome, tried = await self._watched(gang, key, shape, tries)
            except (RayError, TimeoutError, RankFailedError) as error:
                self._tell("released", key, gang.worker, "lost")
                suspect = suspect or not isinstance(error, RayError) or is_suspicious(error)
                tried = self._buried(gang, key, error)
                if not self.stopping and not self._is_worth_another(tries, tried):
                    return Verdict([], [*tries, tried])
                tries.append(tried)
                continue
            self._tell("released", key, gang.worker, outcome)
            self._free(gang, outcome, tried)
            if outcome == STOPPED and not self.stopping:
                tries.append(_evacuated(self.pool.name))
                continue
            if tried is None or not self._is_worth_another(tries, tried):
                return Verdict([table], tries)
            tries.append(tried)
            await asyncio.sleep(random.uniform(1, 2) * 2 ** len(tries))
        return Verdict([], [])

    def _is_worth_another(self, tries: list[FailedTry], tried: FailedTry) -> bool:
        """A store may come back; memory gets one chance in a fresh process."""
        too_large = tried.cause is FailureCause.OUT_OF_MEMORY and tried.cause in [
            item.cause for item in tries
        ]
        return tried.retryable and not too_large and self._num_counted(tries) + 1 < self.faults.max_attempts

    def _num_counted(self, tries: list[FailedTry]) -> int:
        """Tries that count against the request: a node that goes says nothing of it."""
        return sum(item.cause is not FailureCause.PREEMPTED for item in tries)

    async def _next_alive(self, suspect: bool) -> Gang | None:
        """The next gang whose ranks answer, None when the run stops. The dead ones are rebuilt."""
        while True:
            try:
                number = await self.dispatch.take(suspect)
            except RuntimeError:
                lost = f"all gangs of pool {self.pool.name} are lost: {self.why_lost}"
                raise RuntimeError(lost) from None
            if number is None or await self.gangs[number].is_alive():
                return None if number is None else self.gangs[number]
            self._rebuild(self.gangs[number], "died while idle")

    async def _watched(self, gang: Gang, key: str, shape: str, tries: list[FailedTry]) -> Any:
        """Run the request on the gang; a TimeoutError says that it hangs."""
        progress = self.progress[gang.worker] = _Progress()
        work = asyncio.ensure_future(gang.run(self.inputs[key], tries, self.myself))
        while not (await asyncio.wait({work}, timeout=POLL_S))[0]:
            progress.teach(self.patience, shape)
            if progress.silent_s > (limit_s := self.patience.limit_s(shape)):
                work.cancel()
                raise TimeoutError(f"no step for {progress.silent_s:.0f} s, more than {limit_s:.0f} s")
        result = work.result()
        progress.finish(self.patience, shape)
        return result

    def _buried(self, gang: Gang, key: str, error: Exception) -> FailedTry:
        """What a death means for its request; the gang is rebuilt unless the request never reached it."""
        if isinstance(error, RayError) and is_input_lost(error):
            self.dispatch.change(gang.worker, GangState.IDLE)
            return failed_try(self.pool.name, error)
        if isinstance(error, RankFailedError):
            tried = error.args[0]
        elif isinstance(error, RayError):
            tried = failed_try(self.pool.name, error)
        else:
            tried = _stalled(self.pool.name, error)
        self._rebuild(gang, tried.message, key)
        return tried

    def _free(self, gang: Gang, outcome: str, tried: FailedTry | None) -> None:
        """The gang is through with a request that did not kill it."""
        if outcome == "done":
            gang.victims.clear()
        if tried is not None and tried.cause is FailureCause.OUT_OF_MEMORY:
            self._rebuild(gang, "out of memory: what it holds is given back")
        elif outcome == STOPPED and not self.stopping:
            self._rebuild(gang, LEAVING)
        elif outcome == STOPPED and self.pool.world_size > 1:
            gang.kill()  # its other ranks still wait for the first
            self.dispatch.change(gang.worker, GangState.DOWN)
        else:
            self.dispatch.change(gang.worker, GangState.IDLE)

    def _rebuild(self, gang: Gang, reason: str, victim: str = "") -> None:
        """Kill what is left of a gang and build it again, unless it dies under whatever it is given."""
        gang.kill()
        gang.victims |= {victim} - {""}
        if len(gang.victims) >= self.faults.max_builds:
            self._lose(gang, f"it died under {len(gang.victims)} requests in a row, at last: {reason}")
            return
        self.dispatch.change(gang.worker, GangState.DOWN)
        self._tell("gang_changed", gang.worker, "rebuilding", reason)
        if not self.stopping:
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
        return self._lose(gang, reason)

    def _lose(self, gang: Gang, reason: str) -> None:
        self.why_lost = reason
        self._tell("gang_changed", gang.worker, "lost", reason)
        self.dispatch.change(gang.worker, GangState.LOST)

    async def stop(self) -> None:
        """Take no more requests; those in work store their state, or end where that is as quick."""
        self.stopping = True
        self.dispatch.close()
        for gang in self.gangs:
            gang.stop()

    async def abandon(self) -> None:
        """End now: those in work come back as stopped."""
        await self.stop()
        for gang in self.gangs:
            gang.kill()

    async def evacuate(self, nodes: list[str]) -> None:
        """Get off nodes that are about to go: requests in work there move on with their state."""
        for gang in self.gangs:
            if not gang.nodes & set(nodes):
                continue
            gang.stop()
            if self.dispatch.state(gang.worker) is GangState.IDLE:
                self._rebuild(gang, LEAVING)

    async def stepped(self, worker: int, key: str, step: int, total: int) -> None:
        """A rank reports progress."""
        self.progress[worker].heard(step)
        self._tell("stepped", worker, key, step, total)

    async def take_events(self) -> list["Event"]:
        """What happened since the last call."""
        events, self.events = self.events, []
        return events

    def _tell(self, event: str, *arguments: Any) -> None:
        self.events.append((time.time(), event, arguments))


def _evacuated(pool: str) -> FailedTry:
    infrastructure = FailureClass.INFRASTRUCTURE
    return FailedTry(stage=pool, failure_class=infrastructure, message=LEAVING, cause=FailureCause.PREEMPTED)


def _stalled(pool: str, error: Exception) -> FailedTry:
    message, infrastructure = f"its worker hangs: {error}", FailureClass.INFRASTRUCTURE
    return FailedTry(stage=pool, failure_class=infrastructure, message=message, cause=FailureCause.STALLED)


class _Progress:
    """What was heard of the request that a gang has in work."""

    def __init__(self) -> None:
        self.started_s = self.heard_s = time.monotonic()
        self.step: int | None = None
        self.steps_s: list[float] = []

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self.heard_s

    def heard(self, step: int) -> None:
        now = time.monotonic()
        if self.step is not None and step > self.step:
            self.steps_s.append((now - self.heard_s) / (step - self.step))
        self.step, self.heard_s = step, now

    def teach(self, patience: Patience, shape: str) -> None:
        """Hand over the steps that were timed since the last call."""
        for step_s in self.steps_s:
            patience.note(shape, step_s)
        self.steps_s.clear()

    def finish(self, patience: Patience, shape: str) -> None:
        """A stage that reports no steps is one long step."""
        self.teach(patience, shape)
        if self.step is None:
            patience.note(shape, time.monotonic() - self.started_s)
