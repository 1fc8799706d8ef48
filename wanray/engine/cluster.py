"""The cluster: connect or start, decide resources, and check that all pools fit before any starts."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from wanray.config import RayConfig
from wanray.engine.labels import takes, values_of
from wanray.engine.pipeline import PoolSpec, resources_of
from wanray.errors import ConfigError, EngineError

logger = logging.getLogger(__name__)

LOCAL_ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # Ray's default of 15 lets anything else on the machine go first
    "RAY_prestart_worker_first_driver": "0",  # a process per CPU that nobody needs
}

ATTACHING = (
    "; is it up, is this machine one of its nodes, and where it asks for a token, are RAY_AUTH_MODE=token "
    "and RAY_AUTH_TOKEN or ~/.ray/auth_token set here?"
)
"""Ray says why only in lines of its own."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection: the node of this driver, and what a worker gets when its pool names no resources."""

    driver_node: str
    has_gpus: bool

    def resources(self, pool: PoolSpec) -> dict[str, float]:
        """Of one actor or rank of `pool`."""
        return resources_of(pool, self.has_gpus)

    def num_gpus(self, pools: Sequence[PoolSpec]) -> float:
        """That all workers of `pools` have together."""
        return sum(_workers(pool) * self.resources(pool).get("GPU", 0.0) for pool in pools)


@contextmanager
def connect(config: RayConfig, pools: Sequence[PoolSpec]) -> Iterator[Cluster]:
    """Attach to `config.address` or RAY_ADDRESS, else start a cluster on this machine for the block.

    Raises:
        ConfigError: the address is not one for drivers.
        EngineError: no cluster answers, or the pools do not fit; the message has the numbers.
    """
    address = _address(config)
    try:
        if address:
            ray.init(address=address, namespace="wanray", logging_level=logging.ERROR, log_to_driver=False)
        else:
            _start_here(pools)
    except Exception as error:  # Ray raises nothing better where a node starts too slowly
        remedy = ATTACHING if address else ""
        raise EngineError(f"no Ray cluster at {address or 'this machine'}: {error}{remedy}") from error
    try:
        cluster = Cluster(ray.get_runtime_context().get_node_id(), ray.cluster_resources().get("GPU", 0) > 0)
        check_fit(pools, cluster, ray.nodes())
        yield cluster
    except RayError as error:  # those that say more were turned into ours where they arose
        raise EngineError(f"the Ray cluster failed: {type(error).__name__}: {error}") from error
    finally:
        ray.shutdown()


def _address(config: RayConfig) -> str | None:
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address and "://" in address:
        raise ConfigError(
            f"{'ray.address' if config.address else 'RAY_ADDRESS'} must be host:port of the cluster's head "
            f"or auto, got {address!r}: a driver runs inside the cluster; `wanray submit --address "
            "http://HEAD:8265` sends one there"
        )
    return address


def _start_here(pools: Sequence[PoolSpec]) -> None:
    """Start a cluster that declares as many CPUs as the pools ask for: one machine may share its cores."""
    os.environ.update({name: os.environ.get(name, value) for name, value in LOCAL_ENVIRONMENT.items()})
    needed = sum(_workers(pool) * (pool.resources or {"CPU": 1.0}).get("CPU", 0) for pool in pools)
    cores = os.cpu_count() or 1
    if needed > cores:
        logger.info("the pools ask for %g CPUs, this machine has %d: its cores are shared", needed, cores)
    ray.init(
        address="local",
        namespace="wanray",
        num_cpus=max(cores, int(needed) + 1),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _workers(pool: PoolSpec) -> int:
    return pool.num_workers * pool.world_size


def check_fit(pools: Sequence[PoolSpec], cluster: Cluster, nodes: list[dict[str, Any]]) -> None:
    """Raise EngineError unless all workers of all pools can be placed at once.

    A placement group that can never be placed waits forever without an error, so this is asked before.
    The check is greedy: pools with labels choose first.
    """
    free = [_Node(node["Labels"], dict(node["Resources"])) for node in nodes if node["Alive"]]
    for pool in sorted(pools, key=lambda pool: -len(pool.labels)):
        resources = cluster.resources(pool)
        fitting = [node for node in free if _qualifies(node, pool)]
        placed = 0
        while placed < _workers(pool) and any(node.take(resources) for node in fitting):
            placed += 1
        if placed < _workers(pool):
            raise EngineError(_too_small(pool, resources, placed, fitting, free))


def _qualifies(node: "_Node", pool: PoolSpec) -> bool:
    try:
        return takes(pool.labels, node.labels)
    except ConfigError as error:
        raise ConfigError(f"pools.{pool.name}.labels.{error}") from None


@dataclass(slots=True)
class _Node:
    labels: dict[str, str]
    free: dict[str, float]

    def take(self, resources: dict[str, float]) -> bool:
        if any(self.free.get(name, 0) < amount for name, amount in resources.items()):
            return False
        for name, amount in resources.items():
            self.free[name] = self.free.get(name, 0) - amount
        return True


def _too_small(
    pool: PoolSpec, resources: dict[str, float], placed: int, fitting: list[_Node], nodes: list[_Node]
) -> str:
    def total(nodes: list[_Node]) -> str:
        return ", ".join(f"{sum(node.free.get(name, 0) for node in nodes):g} {name}" for name in resources)

    each = ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
    labels = f" with labels {pool.labels}" if pool.labels else ""
    has = values_of(pool.labels, [node.labels for node in nodes])
    return (
        f"pool {pool.name} needs {_workers(pool)} workers of {each}{labels}, but only {placed} fit: "
        f"{len(fitting)} of {len(nodes)} nodes qualify and have {total(fitting)} left"
        f"{f' (of all nodes {has})' if has else ''}; "
        f"lower pools.{pool.name}.gangs, .workers or .resources, or add nodes"
    )


def with_resources(pool: PoolSpec, cluster: Cluster) -> PoolSpec:
    """`pool` with its resources decided."""
    return replace(pool, resources=cluster.resources(pool))


def actor_options(resources: dict[str, float]) -> dict[str, Any]:
    """Ray's `num_cpus`, `num_gpus` and `resources` for one worker."""
    other = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0), "resources": other}
