"""The driver's eye on its pools, twice a second, from a thread of its own.

Events go to the monitor; that the run shall stop, or where gangs shall be now that a node is about to go,
goes to the pools; that a pool cannot start ends the run.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from wanray.background import background
from wanray.config import RenderConfig
from wanray.engine.cluster import Cluster, with_resources
from wanray.engine.draining import draining_nodes
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec
from wanray.engine.places import Places
from wanray.engine.pools import Pools, started_pools
from wanray.errors import WanrayError

logger = logging.getLogger(__name__)

EVERY_S = 0.5
ANSWER_TIMEOUT_S = 2.0
NODES_EVERY_S = 2.0


class Watch:
    """Of one run."""

    def __init__(
        self,
        pools: Pools,
        places: Places,
        finishing: set[str],
        monitor: Monitor,
        stop: threading.Event,
        drain_s: float,
    ) -> None:
        self._pools, self._actors = pools, pools.actors
        self._places, self._finishing, self._monitor = places, finishing, monitor
        self._stop, self._drain_s = stop, drain_s
        self._asked: dict[str, Any] = {}
        """Pool -> reference to events that it was asked for."""
        self._stopped_s: float | None = None
        self._abandoned = False
        self._leaving: set[str] = set()
        self._nodes_s = 0.0
        self.quiet = threading.Event()
        """Set by an error, or when the run was told to stop and all that was as good as done is done."""
        self.error: WanrayError | None = None
        """Why the run cannot go on."""

    @property
    def is_ready(self) -> bool:
        """Whether all pools can work."""
        return self._pools.all_ready

    def look(self) -> None:
        """Carry news in both directions."""
        self._tend()
        if self.error is None and (error := self._pools.start_error()) is not None:
            self.error = error
            self._abandon()
        if self.error is not None:
            self.quiet.set()
        elif self._stop.is_set():
            self._drain()
        elif time.monotonic() - self._nodes_s > NODES_EVERY_S:
            self._nodes_s = time.monotonic()
            self._evacuate()

    def _tend(self) -> None:
        """Tell the pools their places and hear their news; a slow one is not asked before it answers."""
        for name in set(self._actors) - set(self._asked):
            self._asked[name] = self._actors[name].tend.remote(self._places.groups[name])
        ready, _ = ray.wait([*self._asked.values()], num_returns=len(self._asked), timeout=ANSWER_TIMEOUT_S)
        for name in [name for name, ref in self._asked.items() if ref in ready]:
            try:
                events = ray.get(self._asked.pop(name))
            except RayError as error:
                logger.warning("pool %s does not answer: %s", name, error)
                continue
            for ts, event, arguments in events:
                getattr(self._monitor, event)(name, *arguments, ts=ts)

    def _drain(self) -> None:
        now = time.monotonic()
        if self._stopped_s is None:
            self._stopped_s = now
            logger.warning("told to stop: requests in work store their state, denoised ones are committed")
            self._tell("stop", set(self._actors) - self._finishing)
        elif now - self._stopped_s > self._drain_s and not self._abandoned:
            logger.warning("%.0f s are over: what is not finished is left to the next run", self._drain_s)
            self._abandon()
        elif self._abandoned or self._monitor.is_quiet:
            self.quiet.set()

    def _abandon(self) -> None:
        self._abandoned = True
        self._tell("abandon", set(self._actors))

    def _evacuate(self) -> None:
        leaving = set(draining_nodes())
        if leaving - self._leaving:
            logger.warning("nodes are about to go: %s", ", ".join(node[:8] for node in leaving))
        if leaving:
            self._places.leave(leaving)
        self._leaving = leaving

    def _tell(self, method: str, names: set[str]) -> None:
        for name in names:
            getattr(self._actors[name], method).remote()


@contextmanager
def watched_pools(
    pools: Sequence[PoolSpec],
    monitor: Monitor,
    cluster: Cluster,
    config: RenderConfig,
    stop: threading.Event,
) -> Iterator[tuple[Pools, Watch]]:
    """The pools on places of their own, which begin to load, and the eye on them; all end with the block.

    stop: told to stop, the pools drain.

    Raises:
        ConfigError: labels that no node can have.
    """
    pools = [with_resources(pool, cluster) for pool in pools]
    with (
        closing(Places(pools)) as places,
        started_pools(pools, places, cluster, config.ray, config.faults) as started,
    ):
        finishing = {pool.name for pool in pools if pool.finishes}
        watch = Watch(started, places, finishing, monitor, stop, config.faults.drain_s)
        with _watching(watch):
            yield started, watch


@contextmanager
def _watching(watch: Watch) -> Iterator[None]:
    """Look until the block ends, and once more then."""

    def work(ending: threading.Event) -> None:
        while not ending.wait(EVERY_S):
            watch.look()
        watch.look()

    with background(work):
        yield
