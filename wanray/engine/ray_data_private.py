"""The only file that touches Ray Data's private modules: a bound on queued items.

Ray Data bounds bytes, not items, so without the policy a fast encoder runs dozens of requests ahead.
"""

from typing import Any

from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)

CAPS = "wanray.max_queued"


class MaxQueued(BackpressurePolicy):
    """An operator may start a task only while few enough blocks wait in front of its consumer.

    Its own running tasks do not count: a pool of many gangs may feed one decoder. They are bounded already.
    """

    @property
    def name(self) -> str:
        return "MaxQueued"

    def can_add_input(self, op: Any) -> bool:
        caps: dict[str, int] = self._data_context.get_config(CAPS)
        return all(
            self._topology[consumer].total_enqueued_input_blocks() < _cap(caps, consumer.name)
            for consumer in op.output_dependencies
            if consumer in self._topology
        )


def _cap(caps: dict[str, int], operator: str) -> int:
    """Operators are named after their class, as in `MapBatches(DenoiseHigh)`."""
    return next((cap for name, cap in caps.items() if name in operator), max(caps.values()))


def limit_queues(context: DataContext, caps: dict[str, int]) -> None:
    """Let at most `caps[class name]` items wait in front of each stage."""
    context.set_config(CAPS, caps)
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, MaxQueued])
