"""The only file that asks Ray's private state: which nodes were told to go (`ray drain-node`, preemption)."""

from ray._private.state import state


def draining_nodes() -> list[str]:
    """Ids of the nodes that are about to go."""
    return list(state.get_draining_nodes())
