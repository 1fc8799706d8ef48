"""The only file that touches Ray Data's private modules: a bound on queued items, and counts per operator.

Ray Data bounds bytes, not items, so without the policy a fast encoder runs dozens of requests ahead.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback

CAPS = "wanray.max_queued"
Counts = dict[str, tuple[int, int]]
"""Operator name -> (records done, records active)."""


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


class Watch(ExecutionCallback):
    """Calls what `watch_operators` named. A class of this module, because the context travels to workers."""

    watcher: ClassVar[Callable[[Counts], None] | None] = None

    def on_execution_step(self, executor: Any) -> None:
        if Watch.watcher is not None and executor._topology:
            Watch.watcher(
                {
                    op.name: (op.metrics.num_task_inputs_processed, op.num_active_tasks())
                    for op in executor._topology
                }
            )


def watch_operators(context: DataContext, watcher: Callable[[Counts], None]) -> None:
    """Call `watcher` in this process with the counts of all operators at every scheduling step."""
    Watch.watcher = watcher
    context.custom_execution_callback_classes = [Watch]
