"""Carries what the gang pools tell to the monitor, twice a second, from a thread of the driver."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from wanray.engine.background import background
from wanray.engine.monitor import Monitor

logger = logging.getLogger(__name__)

EVERY_S = 0.5


@contextmanager
def watch_pools(actors: dict[str, Any], monitor: Monitor) -> Iterator[None]:
    """Feed `monitor` from the GangPool actors until the block ends."""
    with background(lambda stop: _watch(actors, monitor, stop)):
        yield


def _watch(actors: dict[str, Any], monitor: Monitor, stop: threading.Event) -> None:
    while True:
        last = stop.wait(EVERY_S)
        for name, actor in actors.items():
            try:
                events = ray.get(actor.take_events.remote(), timeout=10)
            except (RayError, TimeoutError) as error:
                logger.warning("pool %s does not answer: %s", name, error)
                continue
            for ts, event, arguments in events:
                getattr(monitor, event)(name, *arguments, ts=ts)
        if last:
            return
