"""Work and profiles for the tests of the planner, without a manifest."""

import numpy as np

from wanray.config import load_config
from wanray.plan import Work
from wanray.plan.pools import shape_groups
from wanray.plan.profile import Measured, Profile
from wanray.registry import MODELS

SMALL, LARGE = (832, 480, 49), (832, 480, 81)


def make_work(shapes, model="t2v-a14b", num_texts=None, expert_bytes=28 * 10**9, **known):
    """Requests of 40 steps: (width, height, frames) -> number."""
    row = MODELS[model]
    costs = {(*shape, 40, 12.0, "unipc", True): number for shape, number in shapes.items()}
    return Work(
        model=row,
        dims=row.dims,
        groups=shape_groups(costs, row, row.dims, row.boundary, "official"),
        text_bytes=np.full(num_texts or sum(shapes.values()), 100, np.int32),
        num_encoder_weights=5 * 10**9,
        expert_bytes=expert_bytes,
        vae_channels=96,
        wants_gpu=frozenset({"decode"}),
        **known,
    )


def make_config(folder, *overrides):
    """A config of these keys."""
    path = folder / "c.yaml"
    path.write_text(f"manifest: m.parquet\noutput: {{url: {folder}/out}}\nmodel: {{path: somewhere}}\n")
    return load_config(path, list(overrides))


def make_profile(*measured, **values):
    """Of run `r1`, which measured these."""
    known = {"run": "r1", "model": "t2v-a14b", "dtype": "bfloat16", "num_clips": 10, "start_s": 0.0}
    return Profile(**(known | values), measured=measured)


def measured(stage, shape, seconds, **gang):
    """Ten clips that took these seconds in a stage."""
    width, height, num_frames = shape
    size = {"width": width, "height": height, "num_frames": num_frames}
    return Measured(stage=stage, **size, count=10, mean_s=seconds, median_s=seconds / 2, **gang)


def gang_of(work, index, *experts):
    """What a denoise stage measures of a group besides its seconds."""
    group = work.groups[index]
    return {"num_steps": group.steps_of(experts), "guided": True, "tflop": group.tflop_of(experts)}
