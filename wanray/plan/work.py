"""What there is to do and what is known of how long it takes: read once, for any number of alternatives."""

import math
from dataclasses import dataclass

import numpy as np

from wanray.checkpoint import Checkpoint, Component
from wanray.checkpoint.shapes import read_shapes
from wanray.plan.encoding import num_linear
from wanray.plan.model import ShapeGroup
from wanray.plan.profile import Profile
from wanray.registry import Dims, Model

_VAE_ENDS = ("decoder.conv_out.weight", "decoder.head.2.weight")
"""The last convolution, as Diffusers and the official folders call it."""


BYTES = {"bfloat16": 2, "float32": 4}
"""Of a weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBytes:
    """How large clips of an output became."""

    per_pixel: float
    num_clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Requests, and all that their estimate needs besides the config."""

    model: Model
    dims: Dims
    groups: tuple[ShapeGroup, ...]
    """Without times."""
    text_bytes: np.ndarray
    """Of each prompt to encode; what requests share is counted once."""
    num_encoder_weights: int
    """That every token is multiplied with."""
    expert_bytes: int
    """Of the weights of one expert, the larger, in the dtype of the run."""
    vae_channels: int
    """Of the decoder where its pictures are largest."""
    wants_gpu: frozenset[str]
    """Pools without experts that take a GPU where nobody says otherwise."""
    profile: Profile | None = None
    clip_bytes: ClipBytes | None = None

    @property
    def num_requests(self) -> int:
        """To render."""
        return sum(group.num_requests for group in self.groups)

    @property
    def requests_per_text(self) -> float:
        """How many requests share what is encoded of one prompt."""
        return self.num_requests / max(1, len(self.text_bytes))


def sizes_of(checkpoint: Checkpoint, dtype: str) -> dict[str, int]:
    """The fields of `Work` that are read off the weights; `dtype`: of the transformer, while it renders."""
    shapes = read_shapes(checkpoint.vae.path, checkpoint.vae.files)
    end = next(name for name in _VAE_ENDS if shapes.has(name))
    return {
        "num_encoder_weights": num_linear(checkpoint.text_encoder),
        "expert_bytes": BYTES[dtype] * max(map(_num_weights, checkpoint.transformers.values())),
        "vae_channels": shapes.of(end)[1],
    }


def _num_weights(component: Component) -> int:
    shapes = read_shapes(component.path, component.files).shapes
    return sum(math.prod(shape) for shape in shapes.values())
