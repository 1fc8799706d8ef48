"""The endpoint from one command: deployed on a cluster or on this machine, taken away when told to stop."""

import logging
import re
import threading
import time
from collections.abc import Callable

from ray import serve
from ray.exceptions import RayError

from wanray.config import RenderConfig
from wanray.engine.cluster import connect
from wanray.engine.deaths import last_line
from wanray.engine.endpoint.app import DRAIN_MARGIN_S, ground_of, make_application
from wanray.engine.noise import tamed
from wanray.engine.signals import on_sigterm
from wanray.errors import ConfigError, EngineError, WanrayError

logger = logging.getLogger(__name__)

NAME = "wanray"
POLL_S = 1.0
RAISED = re.compile(r"wanray\.errors\.(\w+): (.*)")
"""The last line of a traceback that ends in an error of ours."""


def serve_until(stop: threading.Event, config: RenderConfig, ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set; `ready` is told the URL when requests are taken.

    Raises:
        ConfigError: wrong use.
        EngineError: no cluster, or the pools cannot start.
        StorageError: the output cannot be reached.
    """
    ground = ground_of(config)
    logger.info("%s: the pools are loading", ground.model["name"])
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with tamed(), connect(config.ray, ground.pools), on_sigterm(stop):  # after Ray, which has its own handler
        try:
            _check_is_free()
            serve.start(http_options={"host": config.serve.host, "port": config.serve.port})
            serve.run(make_application(ground), name=NAME, blocking=False)
        except (RuntimeError, RayError) as error:
            raise _error(error) from error
        try:
            ready(f"http://{config.serve.host}:{config.serve.port}")
            while not stop.wait(POLL_S):
                pass
        finally:
            logger.info("stopping: what is denoised is committed, the rest stays in the queue")
            _take_away(config.faults.drain_s + DRAIN_MARGIN_S)


def _take_away(patience_s: float) -> None:
    """Returns when the endpoint has drained; Serve itself would not wait that long."""
    serve.delete(NAME, _blocking=False)
    deadline_s = time.monotonic() + patience_s
    while NAME in serve.status().applications and time.monotonic() < deadline_s:
        time.sleep(POLL_S / 2)


def _check_is_free() -> None:
    """Raise ConfigError if the cluster serves one already; say so if the port is not ours to choose."""
    running = serve.status()
    if NAME in running.applications:
        raise ConfigError("ray.address is a cluster that serves already: stop that endpoint, or use another")
    if running.proxies:
        logger.warning("Ray Serve runs there already: its host and port hold, not those of serve.*")


def _error(error: Exception) -> WanrayError:
    """What a replica raised that could not start, if Serve knows of it; else what Serve says."""
    applications = serve.status().applications
    told = applications[NAME].deployments.values() if NAME in applications else ()
    for line in (line for item in told for line in reversed(item.message.splitlines())):
        if found := RAISED.match(line):
            kind = ConfigError if found[1] == ConfigError.__name__ else EngineError
            return kind(f"the endpoint cannot start: {found[2]}")
    return EngineError(f"the endpoint cannot start: {last_line(error)}")
