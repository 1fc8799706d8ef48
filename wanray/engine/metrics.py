"""Brings the metrics of a run to Prometheus, through the metrics agent that Ray has on every node.

The agent keeps a driver's last values after it has ended: what is scraped then is what the ledger has.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.util.metrics import Counter, Gauge

from wanray.background import background
from wanray.live import Snapshot
from wanray.live.metrics import METRICS, RUN_LABELS, Metric

EVERY_S = 2.0


class _Family:
    """One metric as Ray has it, and what it was given: a counter takes differences."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        kind = Counter if metric.is_counter else Gauge
        self._labels = (*RUN_LABELS, *metric.labels)
        self._ray: Any = kind(metric.name, description=metric.help, tag_keys=self._labels)
        self._given: dict[tuple[str, ...], float] = {}

    def update(self, snapshot: Snapshot) -> None:
        for own, value in self._metric.values(snapshot).items():
            labels = (snapshot.run, snapshot.model, *own)
            tags = dict(zip(self._labels, labels, strict=True))
            if not self._metric.is_counter:
                self._ray.set(value, tags=tags)
            elif value > self._given.get(labels, 0.0):
                self._ray.inc(value - self._given.get(labels, 0.0), tags=tags)
            self._given[labels] = value

    def end(self) -> None:
        """A run that is over has nothing in work: gauges, which the agent would go on to tell, fall to 0."""
        if not self._metric.is_counter:
            for labels in self._given:
                self._ray.set(0.0, tags=dict(zip(self._labels, labels, strict=True)))


@contextmanager
def exported(look: Callable[[], Snapshot]) -> Iterator[None]:
    """Tell the agent of this node what `look` returns, until the block ends and once more then."""
    families = [_Family(metric) for metric in METRICS]

    def tell() -> None:
        snapshot = look()
        for family in families:
            family.update(snapshot)

    def work(ending: threading.Event) -> None:
        while not ending.wait(EVERY_S):
            tell()
        tell()
        for family in families:
            family.end()

    with background(work):
        yield
