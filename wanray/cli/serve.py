"""The command that answers requests one by one."""

import logging
import threading
from typing import Any

from wanray.cli.render import Config, Overrides, prepared

logger = logging.getLogger(__name__)


def serve(config: Config, overrides: Overrides = None) -> None:
    """Answer requests by HTTP until interrupted: the same pools, output and guarantees as `render`.

    The configuration needs no manifest; `serve.*` are the keys of the endpoint. Exit code 0: stopped;
    3: infrastructure failed; 1: wrong use.
    """
    from wanray.engine.endpoint.command import serve_until

    stop = threading.Event()

    def work(loaded: Any) -> None:
        serve_until(stop, loaded, lambda url: _tell(url, loaded.output.url))

    try:
        prepared(config, overrides, work, needs_manifest=False)
    except KeyboardInterrupt:
        logger.info("stopped")


def _tell(url: str, output_url: str) -> None:
    print(f"requests {url}/v1/videos", flush=True)
    print(f"state    {url}/v1/status", flush=True)
    print(f"clips    {output_url}/clips/", flush=True)
