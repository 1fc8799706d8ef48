"""Where the gangs of a run are: placement groups, which belong to the driver, so that they end with it."""

from collections.abc import Collection, Sequence

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from wanray.engine.pipeline import PoolSpec
from wanray.errors import ConfigError


class Places:
    """Of all pools.

    Raises:
        ConfigError: labels that no node can have.
    """

    def __init__(self, pools: Sequence[PoolSpec]) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._made: list[PlacementGroup] = []
        self.groups: dict[str, list[PlacementGroup]] = {}
        """By pool, one per gang; a pool brings its gangs to where these say."""
        for pool in pools:
            self.groups[pool.name] = [self._make(pool) for _ in range(pool.num_workers)]

    def leave(self, nodes: Collection[str]) -> None:
        """Other places for the gangs on these nodes. Their pool gives up the old, when they have left."""
        for name, groups in self.groups.items():
            for gang, group in enumerate(groups):
                if not _nodes_of(group).isdisjoint(nodes):
                    groups[gang] = self._make(self._pools[name])

    def close(self) -> None:
        """Give up all places."""
        for group in self._made:
            remove_placement_group(group)

    def _make(self, pool: PoolSpec) -> PlacementGroup:
        assert pool.resources is not None
        bundles, labels = [pool.resources] * pool.world_size, [pool.labels] * pool.world_size
        try:
            group = placement_group(bundles, strategy="PACK", bundle_label_selector=labels)
        except ValueError as error:
            message = f"pools.{pool.name} cannot be placed with labels {pool.labels}: {error}"
            raise ConfigError(message) from error
        self._made.append(group)
        return group


def _nodes_of(group: PlacementGroup) -> set[str]:
    """Ids of the nodes that hold its bundles; none while it waits for room."""
    return set(placement_group_table(group)["bundles_to_node_id"].values())
