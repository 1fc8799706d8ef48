"""How long requests take here: a few of each kind, with few steps, rendered for nothing but their times.

They go through the pools of a render, one gang or worker of each, into a folder of the output that is removed
at the end. What is found is kept as `profile.json` beside the clips, where plans look first.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from wanray.config import PoolsConfig, RenderConfig
from wanray.engine.ground import new_run
from wanray.engine.job import Show, execute
from wanray.engine.prepare import prepare
from wanray.errors import EngineError
from wanray.plan.placement import DENOISE_POOLS
from wanray.plan.profile import FILE, NEVER, Measured, Profile, fits, profile_path, read_profile
from wanray.plan.speed import pool_config
from wanray.storage import Store

logger = logging.getLogger(__name__)

SCRATCH = "profiling"
POOLS = ("extend", "encode", *DENOISE_POOLS.values(), "decode")


def measure(configs: Sequence[RenderConfig], num_steps: int, show: Show) -> Profile:
    """Render samples of the manifest under each config, and keep their times with those kept before.

    configs: of one output and model; they may differ in placement and pools.

    Raises:
        ConfigError, ManifestError: wrong use.
        EngineError: samples failed, or the engine did.
        StorageError: the output cannot be reached.
    """
    store = Store.open(configs[0].output.url)
    profiles = [_measured(config, num_steps, show) for config in configs]
    profile = _merged([*_kept(store, profiles[-1]), *profiles])
    store.write(FILE, profile.to_json().encode())
    return profile


def _measured(config: RenderConfig, num_steps: int, show: Show) -> Profile:
    with _scratch(config) as (trial, store):
        job = prepare(trial, write=True, sample_steps=num_steps)
        if not job.plan.counts.left:
            raise EngineError("nothing was measured: the manifest has no valid row")
        summary = execute(job, show)
        if summary.failed:
            raise EngineError(f"{summary.failed} of {job.plan.counts.left} samples failed: {_why(store)}")
        return Profile.from_json(store.read(profile_path(job.plan.run)))


@contextmanager
def _scratch(config: RenderConfig) -> Iterator[tuple[RenderConfig, Store]]:
    """The config for samples, with a folder that is removed afterwards."""
    folder = f"{SCRATCH}/{new_run()}"
    output = replace(config.output, url=f"{config.output.url.rstrip('/')}/{folder}", save_latents=False)
    ones = {name: replace(pool_config(config, name), workers=1, gangs=1) for name in POOLS}
    trial = replace(
        config,
        output=output,
        run=None,
        claim=False,
        pools=PoolsConfig(**ones),
        denoise=replace(config.denoise, gpus=None, checkpoint_every_steps=0),
        estimate=replace(config.estimate, profile=NEVER),
    )
    whole = Store.open(config.output.url)
    try:
        yield trial, Store.open(output.url)
    finally:
        for path in whole.find(folder):
            whole.delete(path)


def _why(store: Store) -> str:
    """The first failure record."""
    names = store.names("failures")
    return store.read(f"failures/{names[0]}").decode()[:1000] if names else "without a record"


def _kept(store: Store, newest: Profile) -> list[Profile]:
    """What was measured before, unless it was of something else."""
    before = read_profile(store, FILE)
    if before is None:
        return []
    if differs := fits(before, newest.model, newest.dtype):
        logger.warning("the times of an earlier profile are dropped: %s", differs)
        return []
    return [before]


def _merged(profiles: Sequence[Profile]) -> Profile:
    """All times, the newer ones instead of older ones of the same; what is told once is the newest's."""
    found = {_what(entry): _typical(entry) for profile in profiles for entry in profile.measured}
    measured = tuple(found.values())
    return replace(
        profiles[-1], run=FILE, num_clips=sum(profile.num_clips for profile in profiles), measured=measured
    )


def _what(entry: Measured) -> tuple[object, ...]:
    shape = (entry.width, entry.height, entry.num_frames)
    return (entry.stage, *shape, entry.num_steps, entry.guided, entry.world_size, entry.topology)


def _typical(entry: Measured) -> Measured:
    """Denoise and decode without their warming up; texts are shared, so that their mean is what counts."""
    is_even = entry.stage in (*DENOISE_POOLS.values(), "decode")
    return replace(entry, mean_s=entry.median_s) if is_even else entry
