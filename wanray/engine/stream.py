"""The streaming run: plan files through Ray Data stages and gang pools to committed clips.

    read_parquet -> 1-row blocks -> encode actors -> a proxy per gang pool -> decode actors -> status rows

Gangs live outside Ray Data (`pool`); its stage for them is a proxy without resources of its own. Stages never
raise: a failed record travels on as a failure, because Ray Data knows only whole-run failures.
"""

import itertools
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wanray.config import RayConfig
from wanray.engine.cluster import Cluster, actor_options, with_resources
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec, worker_for
from wanray.engine.pool import GangPool
from wanray.engine.ray_data_private import Counts, limit_queues, watch_operators
from wanray.engine.watch import watch_pools
from wanray.engine.work import Chain
from wanray.errors import ConfigError, EngineError, FailureClass, WanrayError
from wanray.records import Failure, Record
from wanray.storage import Store

logger = logging.getLogger(__name__)

FETCHES = 2
"""Times that a record is rendered because its result was lost with a node."""
AHEAD = 2
"""Records that wait at a stage beyond one per worker, so that none waits for Ray Data's scheduler."""


class StageActor:
    """Ray Data's UDF for encode and decode: one actor, one chain of stages."""

    def __init__(self, pool: PoolSpec) -> None:
        assert pool.resources is not None
        self.chain = Chain(pool.stages)
        self.chain.setup(worker_for(pool.resources))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One record in, one out. A broken worker dies: Ray starts another and gives it the record."""
        try:
            return self.chain.run(Record.from_table(batch), lambda step, total: None).to_table()
        except EngineError:
            os._exit(1)


class GangProxy:
    """Ray Data's UDF for a gang pool: hands the record over and waits."""

    def __init__(self, pool: PoolSpec, actor: Any) -> None:
        self.pool, self.actor = pool, actor

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """One record in, one out; records that have failed before pass by."""
        if "failure" in batch.column_names and batch["failure"][0].as_py() is not None:
            return batch
        attempts, error = 0, ""
        for _ in range(FETCHES):
            result, attempts, error = await self.actor.run.remote([ray.put(batch)], batch["key"][0].as_py())
            if not result:
                break
            try:
                return await result[0]
            except RayError as lost:  # its node died after the work was done
                error = type(lost).__name__
        failure = Failure(
            stage=self.pool.name,
            failure_class=FailureClass.INFRASTRUCTURE,
            message=f"{attempts} gangs died under this request, the last with {error}",
            attempts=attempts,
        )
        return replace(Record.from_table(batch), attempts=attempts).failed(failure).to_table()


def run_ray(
    pools: Sequence[PoolSpec],
    store: Store,
    parts: Sequence[str],
    monitor: Monitor,
    cluster: Cluster,
    config: RayConfig,
) -> None:
    """Run the records of the plan files `parts` through the pools; returns when all are finished.

    Gangs start first: while nothing consumes, Ray Data's backpressure does not hold.

    Raises:
        EngineError: gangs cannot be placed or started, or a stage's actors cannot.
    """
    pools = [with_resources(pool, cluster) for pool in pools]
    with _gang_pools([pool for pool in pools if pool.is_gang], cluster, config) as actors:
        with watch_pools(actors, monitor):
            try:
                dataset = _dataset(pools, store, parts, actors, cluster, monitor)
                batches: Any = dataset.iter_batches(
                    batch_size=None, batch_format="pyarrow", prefetch_batches=0
                )
                for batch in batches:
                    for row in range(batch.num_rows):
                        monitor.finished(Record.from_table(batch.slice(row, 1)))
            except (RayError, OSError, ValueError) as error:
                raise _run_error("the stream broke", error) from error


@contextmanager
def _gang_pools(pools: Sequence[PoolSpec], cluster: Cluster, config: RayConfig) -> Iterator[dict[str, Any]]:
    """Pool name -> started GangPool actor; all gangs load at the same time."""
    groups: dict[str, list[PlacementGroup]] = {pool.name: _place(pool) for pool in pools}
    actors: dict[str, Any] = {}
    try:
        for pool in pools:
            here = NodeAffinitySchedulingStrategy(cluster.driver_node, soft=False)
            actors[pool.name] = GangPool.options(scheduling_strategy=here, max_concurrency=1000).remote(
                pool, groups[pool.name], config.max_attempts, config.start_timeout_s
            )
        start = time.monotonic()
        _wait_started(actors, config.start_timeout_s)
        logger.info("all gangs are ready after %.1f s", time.monotonic() - start)
        yield actors
    finally:
        for actor in actors.values():
            ray.kill(actor)
        for group in itertools.chain(*groups.values()):
            remove_placement_group(group)


def _place(pool: PoolSpec) -> list[PlacementGroup]:
    assert pool.resources is not None
    bundles = [pool.resources] * pool.world_size
    labels = [pool.labels] * pool.world_size
    try:
        return [
            placement_group(bundles, strategy="PACK", bundle_label_selector=labels)
            for _ in range(pool.num_workers)
        ]
    except ValueError as error:
        raise ConfigError(f"pools.{pool.name} cannot be placed with labels {pool.labels}: {error}") from error


def _wait_started(actors: dict[str, Any], timeout_s: float) -> None:
    for name, started in [(name, actor.start.remote()) for name, actor in actors.items()]:
        try:
            ray.get(started, timeout=timeout_s)
        except (RayError, TimeoutError) as error:
            raise _run_error(f"pool {name} cannot start", error) from error


def _dataset(
    pools: Sequence[PoolSpec],
    store: Store,
    parts: Sequence[str],
    actors: dict[str, Any],
    cluster: Cluster,
    monitor: Monitor,
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = -1  # one clip may take longer than Ray Data's patience
    context.max_errored_blocks = 0
    context.print_on_execution_start = False
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # the hanging detector takes every long request for a hang
    context.memory_usage_poll_interval_s = None  # a thread per task that measures what nobody reads
    limit_queues(context, {_class_name(pool): 2 * pool.num_workers + AHEAD for pool in pools})
    watch_operators(context, lambda counts: _tell_counts(pools, counts, monitor))
    filesystem, paths = store.for_arrow(parts)
    dataset = ray.data.read_parquet(paths, filesystem=filesystem).repartition(target_num_rows_per_block=1)
    for pool in pools:
        dataset = _add_stage(dataset, pool, actors.get(pool.name), cluster)
    return dataset


def _add_stage(dataset: ray.data.Dataset, pool: PoolSpec, actor: Any, cluster: Cluster) -> ray.data.Dataset:
    if not pool.is_gang:
        assert pool.resources is not None
        return dataset.map_batches(
            _named(StageActor, pool),
            fn_constructor_kwargs={"pool": pool},
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=pool.num_workers, max_tasks_in_flight_per_actor=1 + AHEAD
            ),
            label_selector=pool.labels or None,
            **actor_options(pool.resources),
        )
    in_flight = pool.num_workers + AHEAD
    return dataset.map_batches(
        _named(GangProxy, pool),
        fn_constructor_kwargs={"pool": pool, "actor": actor},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=1, max_tasks_in_flight_per_actor=in_flight, max_concurrent_calls_per_actor=in_flight
        ),
        num_cpus=0,
        label_selector={"ray.io/node-id": cluster.driver_node},
    )


def _class_name(pool: PoolSpec) -> str:
    return "".join(word.capitalize() for word in pool.name.split("_"))


def _named(udf: type, pool: PoolSpec) -> type:
    """Ray Data names its operators after the class."""
    return type(_class_name(pool), (udf,), {})


def _tell_counts(pools: Sequence[PoolSpec], counts: Counts, monitor: Monitor) -> None:
    for pool in pools:
        found = [count for operator, count in counts.items() if _class_name(pool) in operator]
        if found and not pool.is_gang:
            monitor.progressed(pool.name, *found[0])


def _run_error(what: str, error: Exception) -> WanrayError:
    """What ends the run: the user's mistake where a worker found one, else the engine's trouble."""
    if isinstance(error, WanrayError):
        return error
    cause = getattr(error, "cause", None)
    if isinstance(cause, ConfigError):
        return ConfigError(str(cause))
    return EngineError(f"{what}: {_cause(error)}")


def _cause(error: BaseException) -> str:
    """The line of Ray's long text that names the first error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [
        line
        for line in lines
        if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit): .", line) and "ray.exceptions" not in line
    ]
    return (named or lines or [type(error).__name__])[-1]
