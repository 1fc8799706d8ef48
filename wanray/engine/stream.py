"""The streaming run: plan files through Ray Data stages and gang pools to committed clips.

    read_parquet -> 1-row blocks -> a proxy per pool -> status rows

Workers live outside Ray Data (`pool`), which would give a request that kills its actor to the next one for
ever, and wait for ever for one that hangs. What Ray Data does is to stream, with back pressure. Stages never
raise: a failed record travels on as a failure, because Ray Data knows only whole-run failures.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from wanray.config import RayConfig, RenderConfig
from wanray.engine.cluster import Cluster
from wanray.engine.monitor import Monitor
from wanray.engine.pipeline import PoolSpec
from wanray.engine.pools import run_error
from wanray.engine.proxy import GangProxy
from wanray.engine.ray_data_private import limit_queues
from wanray.engine.rounds import Finish, Run
from wanray.engine.watch import watched_pools
from wanray.records import Record
from wanray.storage import Store

AHEAD = 2
"""Records that wait at a stage beyond one per worker, so that none waits for Ray Data's scheduler."""


@contextmanager
def open_stream(
    pools: Sequence[PoolSpec],
    store: Store,
    monitor: Monitor,
    cluster: Cluster,
    config: RenderConfig,
    stop: threading.Event,
) -> Iterator[Run]:
    """Start the pools and yield what streams plan files through them, as often as it is called.

    Records flow while gangs still load, as far as the queues in front of them hold.

    Raises:
        ConfigError: a stage refuses its config.
        EngineError: gangs cannot be placed or started, or the stream breaks.
    """
    with watched_pools(pools, monitor, cluster, config, stop) as (started, watch):

        def run(parts: Sequence[str], finish: Finish) -> None:
            dataset = _dataset(pools, store, parts, started.actors, cluster, config.ray)
            try:
                _consume(dataset, finish, watch.quiet)
            except (RayError, OSError, ValueError) as error:
                raise started.start_error() or run_error("the stream broke", error) from error
            if watch.error is not None:
                raise watch.error

        yield run


def _consume(dataset: ray.data.Dataset, finish: Finish, quiet: threading.Event) -> None:
    batches: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        for row in range(batch.num_rows):
            finish(Record.from_table(batch.slice(row, 1)))
        if quiet.is_set():
            return


def _dataset(
    pools: Sequence[PoolSpec],
    store: Store,
    parts: Sequence[str],
    actors: dict[str, Any],
    cluster: Cluster,
    config: RayConfig,
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = -1  # one clip may take longer than Ray Data's patience
    context.max_errored_blocks = 0
    context.print_on_execution_start = False
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # the hanging detector takes every long request for a hang
    context.memory_usage_poll_interval_s = None  # a thread per task that measures what nobody reads
    visits = [(pool, visit) for pool in pools for visit in range(pool.visits)]
    limit_queues(context, {_class_name(pool, visit): _queued(pool, config) for pool, visit in visits})
    filesystem, paths = store.for_arrow(parts)
    dataset = ray.data.read_parquet(paths, filesystem=filesystem).repartition(target_num_rows_per_block=1)
    for pool, visit in visits:
        in_flight = pool.num_seats + AHEAD
        dataset = dataset.map_batches(
            type(_class_name(pool, visit), (GangProxy,), {}),  # Ray Data names its operators after the class
            fn_constructor_kwargs={"pool": pool, "actor": actors[pool.name], "visit": visit},
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=1, max_tasks_in_flight_per_actor=in_flight, max_concurrent_calls_per_actor=in_flight
            ),
            num_cpus=0,
            label_selector={"ray.io/node-id": cluster.driver_node},
        )
    return dataset


def _queued(pool: PoolSpec, config: RayConfig) -> int:
    """Records in front of a pool, besides the `AHEAD` that its proxy already holds."""
    ahead = 2 * (pool.num_seats * pool.in_a_row + AHEAD) if config.rows_ahead is None else config.rows_ahead
    return max(1, ahead - AHEAD)


def _class_name(pool: PoolSpec, visit: int) -> str:
    words = "".join(word.capitalize() for word in pool.name.split("_"))
    return words if pool.visits == 1 else f"{words}{visit + 1}"
