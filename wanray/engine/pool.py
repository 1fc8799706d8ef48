"""The GangPool actor: hands requests to gangs, and decides what a death means for the request it struck.

A request is never bound to a gang: when a rank dies under it, it goes to the next one (`dispatch` says when),
up to `faults.max_attempts` times, while the broken gang is rebuilt in the background. The placement groups
belong to the driver, so nothing here can leak GPUs. The actor itself may die: Ray starts it again, its ranks
go down with it, the driver says anew where the gangs shall be, and those who wait for a request ask again.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup

from wanray.config import FaultsConfig
from wanray.engine.deaths import failed_try, is_input_lost, is_suspicious
from wanray.engine.firsts import Firsts
from wanray.engine.fleet import LEAVING, Fleet, Lease
from wanray.engine.gang import Gang, RankFailedError
from wanray.engine.patience import Patience
from wanray.engine.pipeline import PoolSpec
from wanray.engine.visits import outcome_of_visit
from wanray.errors import FailureCause, FailureClass
from wanray.records import STOPPED, FailedTry

POLL_S = 0.5
SPARED = "its worker was ended for another request"

Event = tuple[float, str, tuple[Any, ...]]
"""Unix seconds, name of a `Monitor` method, and its arguments without the pool."""


class Verdict(NamedTuple):
    """What became of a request in this pool."""

    table: list[Any]
    """Reference to its record; empty where there is none: the tries say why, or the run is stopping."""
    tries: list[FailedTry]


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class GangPool:
    """Runs records on gangs. All methods are async on one event loop."""

    def __init__(self, pool: PoolSpec, faults: FaultsConfig, start_timeout_s: float) -> None:
        self.pool, self.faults = pool, faults
        self.fleet = Fleet(pool, faults, start_timeout_s, self._tell)
        self.patience = Patience(faults, is_even=not pool.shares)
        self.progress: dict[str, _Progress] = {}
        self.firsts = Firsts()
        self.inputs: dict[str, list[Any]] = {}
        self.work: dict[str, asyncio.Task[Verdict]] = {}
        self.cancelled: set[str] = set()
        self.gangs: dict[str, Gang] = {}
        """Where each request in work is."""
        self.events: list[Event] = []
        self.myself = ray.get_runtime_context().current_actor

    async def start(self, groups: Sequence[PlacementGroup]) -> None:
        """Returns when each gang was built, or tried, and one can work; raises the first error otherwise."""
        self.fleet.place(groups)
        await self.fleet.ready()

    async def tend(self, groups: Sequence[PlacementGroup]) -> list[Event]:
        """Told again and again where the gangs shall be; returns what happened since the last time."""
        self.fleet.place(groups)
        events, self.events = self.events, []
        return events

    async def run(self, ref: list[Any], key: str, shape: str, group: str, visit: int) -> Verdict:
        """Render one record. Who asks for a key that is in work, after a crash of its own, waits for that.

        shape: requests of one shape take equally long per step.
        group: of requests that share what is made of the first of them; empty: it shares nothing.
        visit: how often it was here before.
        """
        self.inputs[key] = ref
        if key not in self.work:
            self.work[key] = asyncio.ensure_future(self._in_turn(key, shape, group, visit))
            self.work[key].add_done_callback(lambda _: self._forget(key))
        return await asyncio.shield(self.work[key])

    def _forget(self, key: str) -> None:
        del self.work[key], self.inputs[key]
        self.progress.pop(key, None)
        self.gangs.pop(key, None)
        self.cancelled.discard(key)

    async def _in_turn(self, key: str, shape: str, group: str, visit: int) -> Verdict:
        async with self.firsts.turn(group):
            return await self._run(key, shape, visit)

    async def _run(self, key: str, shape: str, visit: int) -> Verdict:
        tries: list[FailedTry] = []
        suspect = False
        while (lease := await self.fleet.take(suspect, visit)) is not None:
            if key in self.cancelled:
                self.fleet.leave(lease)
                return Verdict([], [])
            worker = lease.gang.worker
            self._tell("dispatched", key, worker, len(tries) + 1)
            try:
                table, outcome, tried = await self._watched(lease.gang, key, shape, tries)
            except (RayError, TimeoutError, RankFailedError) as error:
                self._tell("released", key, worker, "lost")
                tried = self._buried(lease, key, error)
                suspect = suspect or (tried.cause is not FailureCause.PREEMPTED and is_suspicious(error))
                if not self.fleet.is_stopping and not self._is_worth_another(tries, tried):
                    return Verdict([], [*tries, tried])
                tries.append(tried)
                continue
            self._tell("released", key, worker, outcome_of_visit(outcome, visit, self.pool.visits))
            if outcome == STOPPED and key in self.cancelled and not self.fleet.is_stopping:
                self.fleet.leave(lease)
                return Verdict([], [])
            self.fleet.give_back(lease, outcome, tried)
            if outcome == STOPPED and not self.fleet.is_stopping:
                tries.append(_infrastructure_try(self.pool.name, LEAVING, FailureCause.PREEMPTED))
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

    async def _watched(self, gang: Gang, key: str, shape: str, tries: list[FailedTry]) -> Any:
        """Run the request on the gang; a TimeoutError says that it hangs."""
        progress = self.progress[key] = _Progress()
        self.gangs[key] = gang
        work = asyncio.ensure_future(gang.run(self.inputs[key], key, tries, self.myself))
        while not (await asyncio.wait({work}, timeout=POLL_S))[0]:
            progress.teach(self.patience, shape)
            if progress.silent_s > (limit_s := self.patience.limit_s(shape)):
                work.cancel()
                raise TimeoutError(f"no step for {progress.silent_s:.0f} s, more than {limit_s:.0f} s")
        result = work.result()
        progress.finish(self.patience, shape)
        return result

    def _buried(self, lease: Lease, key: str, error: Exception) -> FailedTry:
        """What a death means for a request it struck; the gang is rebuilt unless another saw to that, or the
        request never reached it.
        """
        if lease.is_over and not lease.gang.has_died:
            return _infrastructure_try(self.pool.name, SPARED, FailureCause.PREEMPTED)
        if isinstance(error, RayError) and is_input_lost(error):
            self.fleet.leave(lease)
            return failed_try(self.pool.name, error)
        if isinstance(error, RankFailedError):
            tried = error.args[0]
        elif isinstance(error, RayError):
            tried = failed_try(self.pool.name, error)
        else:
            tried = _infrastructure_try(self.pool.name, f"its worker hangs: {error}", FailureCause.STALLED)
        if not lease.is_over:
            self.fleet.rebuild(lease.gang, tried.message, key, has_died=isinstance(error, RayActorError))
        return tried

    async def cancel(self, key: str) -> None:
        """Nobody wants this request any more: it comes back as stopped, at once or at its next step."""
        if key in self.work:
            self.cancelled.add(key)
            if key in self.gangs:
                self.gangs[key].cancel(key)

    async def stop(self) -> None:
        """Take no more requests; those in work store their state, or end where that is as quick."""
        self.fleet.stop()

    async def abandon(self) -> None:
        """End now: those in work come back as stopped."""
        await self.stop()
        self.fleet.kill()

    async def stepped(self, worker: int, key: str, step: int, total: int) -> None:
        """A rank reports progress."""
        if key in self.progress:
            self.progress[key].heard(step)
        self._tell("stepped", worker, key, step, total)

    def _tell(self, event: str, *arguments: Any) -> None:
        self.events.append((time.time(), event, arguments))


def _infrastructure_try(pool: str, message: str, cause: FailureCause) -> FailedTry:
    return FailedTry(stage=pool, failure_class=FailureClass.INFRASTRUCTURE, message=message, cause=cause)


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
