"""The pools of a job as one coroutine: a record in, the same record after all pools out."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import ray

from wanray.config import RenderConfig
from wanray.engine.cluster import Cluster, check_fit
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec
from wanray.engine.pools import Pools
from wanray.engine.proxy import GangProxy
from wanray.engine.watch import Watch, watched_pools
from wanray.errors import EngineError, FailureClass, WanrayError
from wanray.records import STOPPED, Record

logger = logging.getLogger(__name__)

NODES_EVERY_S = 2.0
AHEAD = 2
"""Records beyond the seats of all pools that are let in, so that none waits for the next."""


class Line:
    """Ready to render; `open_line` makes one."""

    def __init__(
        self, pools: Sequence[PoolSpec], started: Pools, watch: Watch, monitor: Monitor, config: RenderConfig
    ) -> None:
        self._proxies = [
            GangProxy(pool, started.actors[pool.name], visit)
            for pool in pools
            for visit in range(pool.visits)
        ]
        self._actors = started.actors
        self._watch, self._monitor, self._faults = watch, monitor, config.faults
        self._failed_in_a_row = 0
        self._in_work: set[str] = set()
        self._cancelled: set[str] = set()
        self.seats = sum(pool.num_seats * pool.in_a_row for pool in pools) + AHEAD
        """Records that may be in the pools at once."""

    @property
    def error(self) -> WanrayError | None:
        """Why nothing can be rendered any more."""
        return self._watch.error

    @property
    def is_ready(self) -> bool:
        """Whether all pools can work."""
        return self._watch.is_ready

    async def render(self, record: Record) -> Record:
        """The record with its clip or its failure, or skipped; what may pass is tried again.

        Raises:
            EngineError: the pools are beyond help; the record is not to blame.
            RayError: likewise.
        """
        self._in_work.add(record.key)
        try:
            return await self._rounds(record)
        finally:
            self._in_work.discard(record.key)
            self._cancelled.discard(record.key)

    async def cancel(self, key: str) -> None:
        """Have a record that is in the pools come back soon, skipped."""
        if key not in self._in_work:
            return
        self._cancelled.add(key)
        for actor in self._actors.values():
            await actor.cancel.remote(key)

    async def _rounds(self, record: Record) -> Record:
        for rounds_left in reversed(range(self._faults.max_rounds + 1)):
            done = await self._through(record)
            self._monitor.arrived(done)
            self._count(done)
            if done.failure is None or not done.failure.retryable or not rounds_left:
                return done
            self._monitor.put_off(done)
            record = done.fresh()
        raise AssertionError("the last round returns")

    async def _through(self, record: Record) -> Record:
        table: pa.Table = record.to_table()
        for proxy in self._proxies:
            if record.key in self._cancelled:
                return record.skip(STOPPED)
            table = await proxy(table)
        return Record.from_table(table)

    def _count(self, record: Record) -> None:
        """As in a batch run, many failures in a row are not those of the requests."""
        failure = record.failure
        if failure is None or failure.failure_class is not FailureClass.INFRASTRUCTURE:
            self._failed_in_a_row = 0
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row == self._faults.stop_after:
            raise EngineError(
                f"{self._failed_in_a_row} requests in a row failed for reasons of infrastructure "
                f"(faults.stop_after), the last in {failure.stage}: {failure.message}"
            )


@contextmanager
def open_line(
    pools: Sequence[PoolSpec], monitor: Monitor, config: RenderConfig, stop: threading.Event
) -> Iterator[Line]:
    """The pools, which begin to load, placed by this process, which is in the cluster; `stop` drains them.

    Raises:
        ConfigError: labels that no node can have.
        EngineError: the pools do not fit within `ray.start_timeout_s`.
    """
    cluster = _when_all_fit(pools, config.ray.start_timeout_s, stop)
    monitor.connected(cluster.num_gpus(pools))
    with watched_pools(pools, monitor, cluster, config, stop) as (started, watch):
        yield Line(pools, started, watch, monitor, config)
        stop.set()
        watch.quiet.wait(config.faults.drain_s + 10.0)


def _when_all_fit(pools: Sequence[PoolSpec], timeout_s: float, stop: threading.Event) -> Cluster:
    """Nodes may come after the endpoint: KubeRay deploys it when only the head is up."""
    deadline_s, is_told = time.monotonic() + timeout_s, False
    while True:
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        cluster = Cluster(ray.get_runtime_context().get_node_id(), has_gpus)
        try:
            check_fit(pools, cluster, ray.nodes())
            return cluster
        except EngineError as error:
            if stop.is_set() or time.monotonic() > deadline_s:
                raise
            if not is_told:
                logger.warning("waiting for nodes: %s", error)
            is_told = True
        stop.wait(NODES_EVERY_S)
