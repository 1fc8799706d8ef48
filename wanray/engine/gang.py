"""One gang: a rank process per bundle of a placement group, which render one request together.

Built as a whole and killed as a whole: after the death of one rank the others would wait for it forever.
A worker of encode or decode is a gang of one, and may have several requests in work.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from wanray.engine.cluster import actor_options
from wanray.engine.pipeline import PoolSpec, worker_for
from wanray.engine.work import Chain, outcome_of
from wanray.records import FailedTry, Record

REPORT_EVERY_S = 0.2
ANSWER_TIMEOUT_S = 10.0
ALONE_S = 30.0
"""After one rank has failed, the others get so long to end too: most errors are everybody's."""
TRUSTED_S = 1.0
"""After its last answer a gang is taken for alive this long, so that a busy one is not asked."""

Outcome = tuple[str, FailedTry | None]
"""As `outcome_of` says, with the try that failed."""


_remote: Any = ray.remote  # whose types know no concurrency groups


@_remote(max_restarts=0, concurrency_groups={"control": 1})
class Rank:
    """One process of a gang."""

    def __init__(self, pool: PoolSpec) -> None:
        self.pool = pool
        self.chain = Chain(pool.stages)
        self.stopping = threading.Event()
        self.cancelled: set[int] = set()
        """Tickets of runs that nobody wants any more."""

    @ray.method(concurrency_group="control")
    def describe(self) -> tuple[str, list[Any], int]:
        """Node id, GPU ids and process id: where this rank is."""
        return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids(), os.getpid()

    def host_rendezvous(self) -> str:
        """Open the gang's store here; returns `host:port`."""
        return self.chain.stages[0].host_rendezvous(ray.util.get_node_ip_address(), self.pool.world_size)

    def setup(self, rank: int, rendezvous: str) -> None:
        """Join the gang and load the weights."""
        assert self.pool.resources is not None
        self.rank = rank
        self.chain.setup(worker_for(self.pool.resources, rank, self.pool.world_size, rendezvous))

    @ray.method(num_returns=2)
    def run(
        self, ref: list[Any], tries: Sequence[FailedTry], watcher: Any, worker: int, ticket: int
    ) -> tuple[pa.Table | None, Outcome]:
        """Run the stages on the record behind `ref`; rank 0 returns the record as a table, all the outcome.

        Two return values, so that the pool can wait for the outcome without fetching the tensors.
        """
        record = Record.from_table(ray.get(ref[0])).tried(*tries)

        def shall_stop() -> bool:
            return self.stopping.is_set() or ticket in self.cancelled

        report = _Reporter(watcher, worker, record.key, shall_stop) if self.rank == 0 else _silent
        result = self.chain.run(record, report)
        return (None if self.rank else result.to_table()), (outcome_of(result), _last_try(result))

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Ask the stage in work to stop at its next safe point."""
        self.stopping.set()

    @ray.method(concurrency_group="control")
    def cancel(self, ticket: int) -> None:
        """Ask the same of one run; those beside it and after it, even of the same record, are not touched."""
        self.cancelled.add(ticket)


def _last_try(record: Record) -> FailedTry | None:
    return None if record.failure is None else record.failure.tries[-1]


def _silent(step: int, total: int) -> bool:
    """The report of ranks other than 0, which follow it."""
    return False


class _Reporter:
    """Sends steps to the pool, not more often than anybody can read."""

    def __init__(self, watcher: Any, worker: int, key: str, shall_stop: Callable[[], bool]) -> None:
        self.watcher, self.worker, self.key, self.shall_stop = watcher, worker, key, shall_stop
        self.last_s = 0.0

    def __call__(self, step: int, total: int) -> bool:
        now = time.monotonic()
        if now - self.last_s >= REPORT_EVERY_S or step == total:
            self.last_s = now
            self.watcher.stepped.remote(self.worker, self.key, step, total)
        return self.shall_stop()


class RankFailedError(Exception):
    """One rank failed where the others went on, and now wait for it; `args[0]` is its FailedTry."""


class Gang:
    """The ranks of one placement group, as the pool actor sees them."""

    def __init__(self, worker: int, pool: PoolSpec, group: PlacementGroup) -> None:
        self.worker, self.pool, self.group = worker, pool, group
        self.ranks: list[Any] = []
        self.victims: set[str] = set()
        """Keys under which it died since it last finished one."""
        self.num_ends = 0
        """Times that its ranks were ended."""
        self.has_died = False
        """Whether they ended by themselves the last time."""
        self.answered_s = 0.0
        self._num_runs = 0
        self._tickets: dict[str, int] = {}
        """Key -> the number of its run, of those in work."""

    async def build(self, timeout_s: float) -> str:
        """Start all ranks and load their weights; returns where they are.

        Raises whatever Ray or a stage raises; the gang is then dead and may be built again.
        """
        try:
            return await asyncio.wait_for(self._build(), timeout_s)
        except TimeoutError:
            self.kill()
            raise TimeoutError(
                f"gang {self.worker} was not placed and loaded within {timeout_s:g} s"
            ) from None
        except BaseException:
            self.kill()
            raise

    async def _build(self) -> str:
        await asyncio.wrap_future(self.group.ready().future())
        self.ranks, place = await self._start()
        rendezvous = await self.ranks[0].host_rendezvous.remote() if len(self.ranks) > 1 else ""
        await asyncio.gather(
            *[rank.setup.remote(number, rendezvous) for number, rank in enumerate(self.ranks)]
        )
        return place

    async def _start(self) -> tuple[list[Any], str]:
        """Rank actors, those of a node next to each other, and their places in words."""
        assert self.pool.resources is not None
        options = actor_options(self.pool.resources)
        self.ranks = [
            Rank.options(
                **options,
                max_concurrency=self.pool.concurrency,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, index),
            ).remote(self.pool)
            for index in range(self.pool.world_size)
        ]
        places = await asyncio.gather(*[rank.describe.remote() for rank in self.ranks])
        order = sorted(range(len(places)), key=lambda index: places[index][:2])
        words = " ".join(f"{places[index][0][:8]}:{places[index][2]}" for index in order)
        return [self.ranks[index] for index in order], words

    async def is_alive(self) -> bool:
        """Whether all ranks answer. Ranks may die while they are idle, which is no record's fault."""
        if time.monotonic() - self.answered_s < TRUSTED_S:
            return True
        answers = asyncio.gather(*[rank.describe.remote() for rank in self.ranks])
        try:
            await asyncio.wait_for(answers, ANSWER_TIMEOUT_S)
        except (RayError, TimeoutError):
            return False
        return True

    async def run(
        self, ref: list[Any], key: str, tries: Sequence[FailedTry], watcher: Any
    ) -> tuple[Any, str, FailedTry | None]:
        """Run the record of `key` on all ranks; returns (reference to its table, outcome, failed try).

        The first rank that dies raises at once.

        Raises:
            RayError: a rank has died.
            RankFailedError: a rank failed, and the others do not come to an end without it.
        """
        self._num_runs += 1
        ticket = self._tickets[key] = self._num_runs
        try:
            return await self._run(ref, tries, watcher, ticket)
        finally:
            del self._tickets[key]

    async def _run(
        self, ref: list[Any], tries: Sequence[FailedTry], watcher: Any, ticket: int
    ) -> tuple[Any, str, FailedTry | None]:
        alone: FailedTry | None = None
        results = [rank.run.remote(ref, tries, watcher, self.worker, ticket) for rank in self.ranks]
        waits = [_task(outcome) for _, outcome in results]
        pending, patience_s = set(waits), None
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            failed = [tried for _, tried in (wait.result() for wait in done) if tried is not None]
            if not done:
                raise RankFailedError(alone)
            if failed:
                alone, patience_s = failed[0], ALONE_S
        self.answered_s = time.monotonic()
        return results[0][0], *waits[0].result()

    def stop(self) -> None:
        """Ask for the state of the request in work; its outcome will be `stopped`. Ranks follow the first."""
        if self.ranks:
            self.ranks[0].stop.remote()

    def cancel(self, key: str) -> None:
        """Ask for the end of one request; its outcome will be `stopped`, if it is not done before."""
        if self.ranks and key in self._tickets:
            self.ranks[0].cancel.remote(self._tickets[key])

    def kill(self) -> None:
        """End all ranks."""
        self.num_ends += 1
        for rank in self.ranks:
            ray.kill(rank)
        self.ranks = []


def _task(ref: Any) -> "asyncio.Task[Outcome]":
    """Waits for `ref`; an error is nobody's loss if it is not asked for."""

    async def wait() -> Outcome:
        return await ref

    task = asyncio.ensure_future(wait())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
