"""The endpoint as a Ray Serve application: what `wanray serve`, `serve run` and a RayService deploy."""

from typing import Any

from omegaconf import OmegaConf
from ray import serve
from ray.serve import Application

from wanray.config import RenderConfig, make_config
from wanray.engine.endpoint.api import Api
from wanray.engine.endpoint.renderer import Renderer
from wanray.engine.ground import Ground, lay_ground
from wanray.errors import ConfigError

DRAIN_MARGIN_S = 30.0
"""Beyond `faults.drain_s`, to end ranks and to store the summary."""
BUSY = 1000
"""HTTP requests and calls that a replica has in work at once; all of them wait for somebody else."""


def build(arguments: dict[str, Any]) -> Application:
    """For `import_path: wanray.engine.endpoint.app:build`; `args` are the keys of a configuration, nested or
    dotted.

    Raises:
        ConfigError: wrong use.
        StorageError: the output cannot be reached.
    """
    values = OmegaConf.create()
    for key, value in arguments.items():
        OmegaConf.update(values, key, value, force_add=True)
    nested: Any = OmegaConf.to_container(values)
    return make_application(ground_of(make_config(nested, "args", needs_manifest=False)))


def ground_of(config: RenderConfig) -> Ground:
    """What the endpoint of a configuration rests on: what can be wrong is found before anything is deployed.

    Raises:
        ConfigError, StorageError: as `build`.
    """
    _check(config)
    if config.denoise.gpus is not None:
        raise ConfigError(
            f"denoise.gpus {config.denoise.gpus} chooses for known requests, and an endpoint has none: set "
            "placement and pools, as `wanray plan` chooses them for requests like those to come"
        )
    ground = lay_ground(config, keeps=True)
    if config.serve.presign_s is not None and not ground.ledger.store.is_remote:
        url = ground.ledger.store.url
        raise ConfigError(
            f"serve.presign_s needs a store with presigned URLs, and output.url {url} is a folder"
        )
    return ground


def make_application(ground: Ground) -> Application:
    """The deployments of an endpoint."""
    config = ground.config
    here: dict[str, Any] = {"num_cpus": 0, "label_selector": config.serve.labels}
    renderer = serve.deployment(
        name="renderer",
        num_replicas=1,
        ray_actor_options=here,
        max_ongoing_requests=BUSY,
        max_constructor_retry_count=2,
        health_check_period_s=5,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=config.faults.drain_s + DRAIN_MARGIN_S,
    )(Renderer)
    api = serve.deployment(
        name="api",
        num_replicas=config.serve.replicas,
        ray_actor_options=here,
        max_ongoing_requests=BUSY,
        graceful_shutdown_wait_loop_s=1,
    )(Api)
    return api.bind(ground.ledger.store.url, config.serve, renderer.bind(ground))


def _check(config: RenderConfig) -> None:
    if config.engine != "ray":
        raise ConfigError(f"engine must be ray to serve, got {config.engine}")
    for key, is_many in (
        ("sweep", bool(config.sweep)),
        ("defaults.seeds", config.defaults.seeds is not None),
        ("extension.variants", config.extension.variants > 1),
    ):
        if is_many:
            raise ConfigError(f"{key} makes several videos of a request: leave it out to serve")
