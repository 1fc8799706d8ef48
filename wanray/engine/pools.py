"""Starts and ends the pools of a run on a cluster: a GangPool actor each, on the driver's node."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wanray.config import FaultsConfig, RayConfig
from wanray.engine.cluster import Cluster
from wanray.engine.deaths import last_line
from wanray.engine.pipeline import PoolSpec
from wanray.engine.places import Places
from wanray.engine.pool import GangPool
from wanray.errors import ConfigError, EngineError, WanrayError

logger = logging.getLogger(__name__)


class Pools:
    """GangPool actors, which load all at the same time; requests wait there until a gang is ready."""

    def __init__(self, actors: dict[str, Any], places: Places) -> None:
        self.actors = actors
        self._began_s = time.monotonic()
        self._starts = {actor.start.remote(places.groups[name]): name for name, actor in actors.items()}
        self.all_ready = False
        """Whether each gang was built, or tried, and one of each pool can work."""

    def start_error(self) -> WanrayError | None:
        """Why a pool could not start: what a stage refuses in its config (ConfigError), or an EngineError."""
        if self.all_ready:
            return None
        ready, loading = ray.wait([*self._starts], num_returns=len(self._starts), timeout=0)
        for started in ready:
            try:
                ray.get(started)
            except (RayError, ConfigError, OSError, ValueError) as error:
                return run_error(f"pool {self._starts[started]} cannot start", error)
        if not loading:
            self.all_ready = True
            logger.info("all pools are ready after %.1f s", time.monotonic() - self._began_s)
        return None


@contextmanager
def started_pools(
    pools: Sequence[PoolSpec], places: Places, cluster: Cluster, config: RayConfig, faults: FaultsConfig
) -> Iterator[Pools]:
    """The pools, which begin to load; killed at the end of the block."""
    actors: dict[str, Any] = {}
    try:
        for pool in pools:
            here = NodeAffinitySchedulingStrategy(cluster.driver_node, soft=False)
            actors[pool.name] = GangPool.options(scheduling_strategy=here, max_concurrency=1000).remote(
                pool, faults, config.start_timeout_s
            )
        yield Pools(actors, places)
    finally:
        for actor in actors.values():
            ray.kill(actor)


def run_error(what: str, error: Exception) -> WanrayError:
    """What ends the run: the user's mistake where a worker found one, else the engine's trouble."""
    cause = getattr(error, "cause", error)  # Ray's copy of a worker's error is of both kinds, ours and Ray's
    if isinstance(cause, WanrayError):
        return cause
    return EngineError(f"{what}: {last_line(error)}")
