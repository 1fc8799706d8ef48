"""From a config to a planned job: everything decided and checked, nothing started."""

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from wanray.checkpoint.vocabulary import Vocabulary
from wanray.config import RenderConfig
from wanray.engine.ground import Ground, check_output, lay_ground, store_config
from wanray.engine.pipeline import PoolSpec, numerics_json
from wanray.errors import ConfigError
from wanray.manifest import read_rows, resolve
from wanray.plan import Plan, Selection, Work, WritePart, make_estimate, select_requests, store_plan
from wanray.plan.placement import DENOISE_POOLS
from wanray.plan.pools import check_shapes, shape_groups
from wanray.plan.profile import Profile, find_profile, fits
from wanray.plan.samples import Sampler
from wanray.plan.settle import settle
from wanray.plan.storage import earlier_clips
from wanray.plan.words import WordCheck
from wanray.plan.work import sizes_of
from wanray.sinks.index import drop_from_index, indexed_keys
from wanray.sinks.ledger import Ledger
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
    work: Work | None = None
    """What the estimate rests on; None where nothing is denoised."""


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


def prepare(
    config: RenderConfig, choice: Choice = EVERYTHING, *, write: bool, sample_steps: int | None = None
) -> Job:
    """Plan the job. With `write`, the output is checked and config and plan files are stored under `runs/`.

    sample_steps: render only a few requests of each kind, with so many steps.

    Raises:
        ConfigError, ManifestError: wrong use.
        StorageError: the output cannot be reached.
    """
    ground = lay_ground(config, keeps=write)
    ledger, run, notes = ground.ledger, ground.run, [*ground.notes]
    resolved = resolve(read_rows(config), ground.resolver)
    vocabulary = Vocabulary.read(ground.checkpoint.tokenizer)
    check = WordCheck(vocabulary) if vocabulary else None
    if check:
        resolved = check(resolved)
    if sample_steps is not None:
        resolved = Sampler(sample_steps, ground.model, numerics_json(config.numerics))(resolved)
    if write:
        notes += check_output(ledger.store)
    failed = set() if choice.retry_failed or choice.only else ledger.keys_failed_for_good()
    writer = _part_writer(ledger.store, run, write)
    selection = select_requests(resolved, _committed(ledger, write), writer, failed, choice.only)
    notes += check.notes() if check else []
    if write:
        store_config(ledger.store, run, ground.config)
    work = _work(ground, selection, notes)
    config, placement, reason = settle(ground.config, work)
    ground = ground.settled(config, placement)
    denoise = [pool.name for pool in ground.pools if pool.name in DENOISE_POOLS.values()]
    notes += check_shapes(config, denoise, work.groups)
    plan = _plan(ground, work, selection, reason, notes)
    if write:
        store_plan(ledger.store, plan)
    return Job(
        config=config, plan=plan, pools=ground.pools, invalid=selection.invalid, ledger=ledger, work=work
    )


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


def _work(ground: Ground, selection: Selection, notes: list[str]) -> Work:
    config, checkpoint, store = ground.config, ground.checkpoint, ground.ledger.store
    mode = config.numerics.mode
    return Work(
        model=checkpoint.model,
        dims=checkpoint.dims,
        groups=shape_groups(
            selection.costs, checkpoint.model, checkpoint.dims, checkpoint.switch(mode), mode
        ),
        text_bytes=selection.text_bytes,
        wants_gpu=frozenset(pool.name for pool in ground.pools if pool.wants_gpu),
        profile=_profile(config, checkpoint.model.name, store, notes),
        clip_bytes=earlier_clips(store, config.output.video),
        **sizes_of(checkpoint, config.numerics.dtype),
    )


def _profile(config: RenderConfig, model: str, store: Store, notes: list[str]) -> Profile | None:
    """What an earlier run measured, if it says anything of this one."""
    profile = find_profile(config.estimate.profile, store)
    if profile is None:
        return None
    differs = fits(profile, model, config.numerics.dtype)
    if differs:
        notes.append(f"the times of run {profile.run} are not used: {differs}")
    return None if differs else profile


def _plan(ground: Ground, work: Work, selection: Selection, reason: str, notes: list[str]) -> Plan:
    config, run = ground.config, ground.run
    estimated = make_estimate(config, work, ground.placement)
    return Plan(
        run=run,
        model=ground.model,
        numerics=numerics_json(config.numerics),
        placement=ground.placement,
        placement_reason=reason,
        counts=selection.counts,
        groups=estimated.groups,
        pools=estimated.pools,
        parts=tuple(f"runs/{run}/plan/{name}" for name in selection.parts),
        problems=tuple(selection.problems.messages),
        num_problems=selection.problems.num,
        broken_rules=selection.problems.broken_rules(),
        notes=tuple(notes),
        assumptions=_assumptions(config),
        extension=ground.extension_words,
        estimate=estimated.estimate,
    )


def _assumptions(config: RenderConfig) -> dict[str, Any]:
    """What the estimate rests on, with what follows from the kind of GPU."""
    estimate = config.estimate
    given = {name: value for name, value in asdict(estimate).items() if value is not None}
    return given | {"peak_tflops": estimate.gpu_tflops, "gpu_gib": estimate.gpu_bytes / 2**30}
