"""From a config to a planned job: everything decided and checked, nothing started."""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import yaml

from wanray.checkpoint import Checkpoint, open_checkpoint
from wanray.config import RenderConfig
from wanray.digest import weights_digest
from wanray.engine.extending import make_extending
from wanray.engine.pipeline import PoolSpec, make_pools, numerics_json
from wanray.errors import ConfigError, StorageError
from wanray.hub import resolve as resolve_path
from wanray.manifest import Keep, Resolver, read_batches, resolve
from wanray.manifest.media import absolute_roots
from wanray.plan import Plan, Selection, WritePart, choose_pools, select_requests
from wanray.plan.encoding import encode_work_s
from wanray.plan.pools import check_pools, choose_placement, pool_experts, shape_groups
from wanray.registry import DIFFUSERS_DEFAULTS
from wanray.sinks.index import drop_from_index, indexed_keys
from wanray.sinks.ledger import Ledger
from wanray.sinks.video import check_video
from wanray.storage import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A planned run."""

    config: RenderConfig
    plan: Plan
    pools: tuple[PoolSpec, ...]
    invalid: pa.Table
    """`wanray.manifest.INVALID_SCHEMA`."""
    ledger: Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which of the requests that are left to render."""

    only: tuple[str, ...] = ()
    """Ids and keys (or their first eight characters and more); empty: all."""
    retry_failed: bool = False
    """Also those that failed in an earlier run, where trying again is no use without a change."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name.encode(errors="replace").decode() != name:
                raise ConfigError(f"--only must be UTF-8 text, got {name!r}")


EVERYTHING = Choice()


def prepare(config: RenderConfig, choice: Choice = EVERYTHING, *, write: bool) -> Job:
    """Plan the job. With `write`, the output is checked and config and plan files are stored under `runs/`.

    Raises:
        ConfigError, ManifestError: wrong use.
        StorageError: the output cannot be reached.
    """
    check_video(config.output.video)
    config = replace(config, media=absolute_roots(config.media))
    checkpoint = open_checkpoint(resolve_path(config.model.path), config.model.name)
    placement = choose_placement(config, checkpoint.model)
    notes = check_pools(config, placement, checkpoint.dims, list(pool_experts(placement, checkpoint.model)))
    model = {"name": checkpoint.model.name, "digest": weights_digest(checkpoint)}
    ledger, run = Ledger(Store.open(config.output.url)), config.run or new_run()
    keep = make_keeper(ledger.store, write)
    extending = make_extending(config, checkpoint.model)
    resolver = replace(
        make_resolver(config, checkpoint, model, keep), extension=extending and extending.extension
    )
    resolved = resolve(read_batches(config.manifest), resolver)
    if write:
        notes += check_output(ledger.store)
    failed = set() if choice.retry_failed or choice.only else ledger.keys_failed_for_good()
    writer = _part_writer(ledger.store, run, write)
    selection = select_requests(resolved, _committed(ledger, write), writer, failed, choice.only)
    if write:
        settings = yaml.safe_dump(asdict(config), sort_keys=False)
        ledger.store.write(f"runs/{run}/config.yaml", settings.encode())
    plan = _plan(config, checkpoint, placement, model, run, selection, notes)
    if extending is not None:
        plan = replace(plan, extension=extending.words())
    pools = make_pools(config, checkpoint, model, placement, run, extending and extending.stage)
    return Job(config=config, plan=plan, pools=pools, invalid=selection.invalid, ledger=ledger)


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
    return Resolver(
        model=checkpoint.model,
        model_json=model,
        numerics=numerics_json(config.numerics),
        official=official,
        defaults=config.defaults,
        sweep=config.sweep,
        keep=keep,
        media=config.media,
    )


def make_keeper(store: Store, write: bool) -> Keep:
    """Media that come inside the manifest lie under `inputs/`, by their content."""

    def keep(sha256: str, content: bytes) -> str:
        path = f"inputs/{sha256}"
        if write and not store.exists(path):
            store.write(path, content)
        return store.uri(path)

    return keep


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


def _committed(ledger: Ledger, write: bool) -> set[bytes]:
    """The committed keys; the index forgets those of clips that somebody has removed."""
    indexed = indexed_keys(ledger.store)
    committed = ledger.committed_keys(indexed)
    if write:
        drop_from_index(ledger.store, indexed - committed)
    return committed


def _part_writer(store: Store, run: str, write: bool) -> WritePart:
    def write_part(name: str, data: bytes) -> None:
        if write:
            store.write(f"runs/{run}/plan/{name}", data)

    return write_part


def _plan(
    config: RenderConfig,
    checkpoint: Checkpoint,
    placement: str,
    model: dict[str, str],
    run: str,
    selection: Selection,
    notes: list[str],
) -> Plan:
    mode = config.numerics.mode
    groups = shape_groups(selection.costs, checkpoint.model, checkpoint.dims, checkpoint.switch(mode), mode)
    texts = selection.text_bytes
    encode_s = encode_work_s(config, checkpoint.model, checkpoint.text_encoder, texts)
    return Plan(
        run=run,
        model=model,
        numerics=numerics_json(config.numerics),
        placement=placement,
        counts=selection.counts,
        groups=groups,
        pools=choose_pools(config, checkpoint.model, placement, groups, encode_s, len(texts)),
        parts=tuple(f"runs/{run}/plan/{name}" for name in selection.parts),
        problems=tuple(selection.problems),
        num_problems=selection.num_problems,
        notes=tuple(notes),
        assumptions={name: value for name, value in asdict(config.estimate).items() if value is not None},
    )
