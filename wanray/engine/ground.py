"""What a job rests on, whatever it renders: model, placement, pools, output and rules for its rows.

Batch runs and the endpoint begin here; nothing is started.
"""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import yaml

from wanray.checkpoint import Checkpoint, open_checkpoint
from wanray.config import RenderConfig
from wanray.digest import weights_digest
from wanray.engine.extending import make_extending
from wanray.engine.pipeline import PoolSpec, make_pools, numerics_json
from wanray.errors import ConfigError, StorageError
from wanray.hub import resolve as resolve_path
from wanray.manifest import Keep, Resolver
from wanray.manifest.media import absolute_roots
from wanray.plan.placement import choose_placement, pool_experts
from wanray.plan.pools import check_pools
from wanray.plan.settle import check_choice_is_free
from wanray.registry import DIFFUSERS_DEFAULTS
from wanray.sinks.ledger import Ledger
from wanray.sinks.video import check_video
from wanray.stages.configs import ExtendConfig
from wanray.storage import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """The same for all requests of a job. It pickles."""

    config: RenderConfig
    """With absolute media roots."""
    checkpoint: Checkpoint
    model: dict[str, str]
    """{name, digest} of the weights."""
    placement: str
    run: str
    ledger: Ledger
    resolver: Resolver
    pools: tuple[PoolSpec, ...]
    extend: ExtendConfig | None
    """Of the pool that extends prompts, if there is one."""
    extension_words: dict[str, Any]
    """How prompts are extended, for the plan; empty: they are rendered as written."""
    notes: tuple[str, ...]
    """What the user should know of it."""

    def settled(self, config: RenderConfig, placement: str) -> "Ground":
        """The same with pools as `config` has them."""
        if config is self.config:
            return self
        pools = make_pools(config, self.checkpoint, self.model, placement, self.run, self.extend)
        return replace(self, config=config, placement=placement, pools=pools)


def lay_ground(config: RenderConfig, *, keeps: bool) -> Ground:
    """Decide and check all that does not depend on single rows.

    keeps: media that come inside rows are stored in the output.

    Raises:
        ConfigError: wrong use.
        StorageError: the output cannot be reached.
    """
    check_video(config.output.video)
    config = replace(config, media=absolute_roots(config.media))
    checkpoint = open_checkpoint(resolve_path(config.model.path), config.model.name)
    check_choice_is_free(config)
    placement = choose_placement(config, checkpoint.model)
    notes = check_pools(config, placement, checkpoint.dims, list(pool_experts(placement, checkpoint.model)))
    model = {"name": checkpoint.model.name, "digest": weights_digest(checkpoint)}
    ledger, run = Ledger(Store.open(config.output.url)), config.run or new_run()
    extending = make_extending(config, checkpoint.model)
    extend = extending.stage if extending else None
    resolver = make_resolver(config, checkpoint, model, Keeper(ledger.store, keeps))
    return Ground(
        config=config,
        checkpoint=checkpoint,
        model=model,
        placement=placement,
        run=run,
        ledger=ledger,
        resolver=replace(resolver, extension=extending and extending.extension),
        pools=make_pools(config, checkpoint, model, placement, run, extend),
        extend=extend,
        extension_words=extending.words() if extending else {},
        notes=tuple(notes),
    )


def new_run() -> str:
    """A name that sorts by time and that two jobs started at once do not share."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def make_resolver(
    config: RenderConfig, checkpoint: Checkpoint, model: dict[str, str], keep: Keep
) -> Resolver:
    """What is the same for all rows of a job whose prompts are rendered as written."""
    official = checkpoint.model.defaults
    if config.numerics.mode == "diffusers":
        official = replace(DIFFUSERS_DEFAULTS, shift=checkpoint.flow_shift)
    defaults = config.defaults
    if config.manifest is None:
        defaults = replace(defaults, prompt=None)  # the rows have them
    return Resolver(
        model=checkpoint.model,
        model_json=model,
        numerics=numerics_json(config.numerics),
        official=official,
        defaults=defaults,
        sweep=config.sweep,
        keep=keep,
        media=config.media,
    )


def check_output(store: Store) -> list[str]:
    """Refuse an output that nobody can write to; returns notes on what the store does not promise."""
    try:
        honoured = store.check()
    except StorageError as error:
        if isinstance(error.__cause__, FileExistsError | NotADirectoryError | PermissionError):
            raise ConfigError(f"output.url must be a folder to write to, got {store.url}: {error}") from error
        raise
    if honoured:
        return []
    return [f"{store.url} ignores create-if-absent: two jobs at once may commit a clip twice"]


def store_config(store: Store, run: str, config: RenderConfig) -> None:
    """The settings of a run; others see by this file that it has begun."""
    settings = yaml.safe_dump(asdict(config), sort_keys=False)
    store.write(f"runs/{run}/config.yaml", settings.encode())


class Keeper:
    """Media that come inside rows lie under `inputs/`, by their content."""

    def __init__(self, store: Store, writes: bool) -> None:
        self._store, self._writes = store, writes

    def __call__(self, sha256: str, content: bytes) -> str:
        """Store the content, if there is any storing; returns its URI."""
        path = f"inputs/{sha256}"
        if self._writes and not self._store.exists(path):
            self._store.write(path, content)
        return self._store.uri(path)
