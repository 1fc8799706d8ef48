"""Starts and ends the pools of a run on a cluster: a GangPool actor each, on the driver's node."""

import logging
import threading
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

POLL_S = 0.5


@contextmanager
def started_pools(
    pools: Sequence[PoolSpec],
    places: Places,
    cluster: Cluster,
    config: RayConfig,
    faults: FaultsConfig,
    stop: threading.Event,
) -> Iterator[dict[str, Any]]:
    """Pool name -> GangPool actor with at least one gang ready; all load at the same time.

    Raises:
        ConfigError: a stage refuses its config.
        EngineError: a pool cannot start.
    """
    actors: dict[str, Any] = {}
    try:
        for pool in pools:
            here = NodeAffinitySchedulingStrategy(cluster.driver_node, soft=False)
            actors[pool.name] = GangPool.options(scheduling_strategy=here, max_concurrency=1000).remote(
                pool, faults, config.start_timeout_s
            )
        start = time.monotonic()
        _wait_started(actors, places, stop)
        logger.info("all pools are ready after %.1f s", time.monotonic() - start)
        yield actors
    finally:
        for actor in actors.values():
            ray.kill(actor)


def _wait_started(actors: dict[str, Any], places: Places, stop: threading.Event) -> None:
    """Return when all pools have started; the first that cannot ends the wait."""
    waiting = {actor.start.remote(places.groups[name]): name for name, actor in actors.items()}
    while waiting and not stop.is_set():
        ready, _ = ray.wait(list(waiting), timeout=POLL_S)
        for started in ready:
            name = waiting.pop(started)
            try:
                ray.get(started)
            except (RayError, ConfigError, OSError, ValueError) as error:
                raise run_error(f"pool {name} cannot start", error) from error


def run_error(what: str, error: Exception) -> WanrayError:
    """What ends the run: the user's mistake where a worker found one, else the engine's trouble."""
    cause = getattr(error, "cause", error)  # Ray's copy of a worker's error is of both kinds, ours and Ray's
    if isinstance(cause, WanrayError):
        return cause
    return EngineError(f"{what}: {last_line(error)}")
