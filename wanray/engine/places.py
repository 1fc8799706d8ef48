"""Where the gangs of a run are: placement groups, which belong to the driver, so that they end with it.

A gang lies within one node wherever one has room for it: its ranks exchange something in every layer. Ray's
`PACK` looks for the best node for one rank, and may end on two, so whole nodes are asked for first.
"""

import logging
import time
from collections.abc import Collection, Sequence
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from wanray.engine.labels import takes
from wanray.engine.pipeline import PoolSpec
from wanray.errors import ConfigError

logger = logging.getLogger(__name__)

ONE_NODE_S = 10.0
"""For so long gangs wait for room within one node; Ray places what has room at once."""


class Places:
    """Of all pools.

    Raises:
        ConfigError: labels that no node can have.
    """

    def __init__(self, pools: Sequence[PoolSpec]) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._made: list[PlacementGroup] = []
        self.groups: dict[str, list[PlacementGroup]] = {pool.name: [] for pool in pools}
        """By pool, one per gang; a pool brings its gangs to where these say."""
        wanted = [pool for pool in pools for _ in range(pool.num_workers)]
        for pool, group in zip(wanted, self._make_all(wanted), strict=True):
            self.groups[pool.name].append(group)

    def leave(self, nodes: Collection[str]) -> None:
        """Other places for the gangs on these nodes. Their pool gives up the old, when they have left."""
        leaving = [
            (name, gang)
            for name, groups in self.groups.items()
            for gang, group in enumerate(groups)
            if not _nodes_of(group).isdisjoint(nodes)
        ]
        others = self._make_all([self._pools[name] for name, _ in leaving])
        for (name, gang), group in zip(leaving, others, strict=True):
            self.groups[name][gang] = group

    def close(self) -> None:
        """Give up all places."""
        for group in self._made:
            remove_placement_group(group)

    def _make_all(self, pools: Sequence[PoolSpec]) -> list[PlacementGroup]:
        """A place for a gang of each of `pools`, made for the largest first, which fit in fewest places."""
        order = sorted(range(len(pools)), key=lambda index: -pools[index].world_size)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        gangs = [index for index in order if pools[index].world_size > 1]
        within_one = {index for index in gangs if any(_is_large_enough(node, pools[index]) for node in nodes)}
        made = {
            index: self._make(pools[index], "STRICT_PACK" if index in within_one else "PACK")
            for index in order
        }
        until_s = time.monotonic() + ONE_NODE_S
        for index in within_one:
            if not made[index].wait(max(0.1, until_s - time.monotonic())):
                made[index] = self._make_loosely(pools[index], made[index])
        return [made[index] for index in range(len(pools))]

    def _make_loosely(self, pool: PoolSpec, waiting: PlacementGroup) -> PlacementGroup:
        """A place on any nodes instead of `waiting`, for which no node has room."""
        logger.warning(
            "pool=%s no node has room for all %d ranks of a gang: it may span nodes, which is slower",
            pool.name,
            pool.world_size,
        )
        self._made.remove(waiting)
        remove_placement_group(waiting)
        return self._make(pool, "PACK")

    def _make(self, pool: PoolSpec, strategy: str) -> PlacementGroup:
        assert pool.resources is not None
        bundles, labels = [pool.resources] * pool.world_size, [pool.labels] * pool.world_size
        try:
            group = placement_group(bundles, strategy=strategy, bundle_label_selector=labels)
        except ValueError as error:
            message = f"pools.{pool.name} cannot be placed with labels {pool.labels}: {error}"
            raise ConfigError(message) from error
        self._made.append(group)
        return group


def _is_large_enough(node: dict[str, Any], pool: PoolSpec) -> bool:
    """Whether `node`, as `ray.nodes` tells of it, can hold all ranks of a gang if it holds nothing else."""
    assert pool.resources is not None
    needed = {name: amount * pool.world_size for name, amount in pool.resources.items()}
    has_room = all(node["Resources"].get(name, 0.0) >= amount for name, amount in needed.items())
    return has_room and takes(pool.labels, node["Labels"])


def _nodes_of(group: PlacementGroup) -> set[str]:
    """Ids of the nodes that hold its bundles; none while it waits for room."""
    return set(placement_group_table(group)["bundles_to_node_id"].values())
