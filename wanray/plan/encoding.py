"""How much text there is to encode, and how many workers do it as fast as the gangs denoise."""

import math

import numpy as np

from wanray.checkpoint import Component
from wanray.checkpoint.shapes import read_shapes
from wanray.config import RenderConfig
from wanray.plan.speed import pool_tflops
from wanray.sizing import TEXT_BUCKETS

BYTES_PER_TOKEN = 4
"""Of UTF-8 in UMT5's vocabulary: English has four characters per token, Chinese one and a half."""
EXTENDED_BYTES = 800
"""Of an extended prompt, whose length is not known before."""


def encode_work_s(config: RenderConfig, on_gpu: bool, num_weights: int, text_bytes: np.ndarray) -> float:
    """Seconds that one worker would take for all prompts of these lengths.

    num_weights: of the text encoder (`num_linear`).
    """
    if config.estimate.encode_s is not None:
        return len(text_bytes) * config.estimate.encode_s
    if config.extension.method != "none":
        text_bytes = np.full_like(text_bytes, EXTENDED_BYTES)
    tflop = 2 * num_weights * _num_padded(text_bytes) / 1e12
    return tflop / pool_tflops(config, "encode", on_gpu)


def workers_to_feed(work_s: float, denoise_s: float) -> int:
    """Workers that do in `denoise_s` seconds what takes one `work_s`."""
    return max(1, math.ceil(work_s / denoise_s)) if denoise_s else 1


def num_linear(encoder: Component) -> int:
    """Parameters that every token is multiplied with: all matrices but embeddings."""
    shapes = read_shapes(encoder.path, encoder.files).shapes
    tables = ("embed", "shared", "relative")
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and not any(word in name for word in tables)
    )


def _num_padded(text_bytes: np.ndarray) -> int:
    """Tokens in the buckets that these texts will fill."""
    tokens = np.minimum(text_bytes // BYTES_PER_TOKEN + 1, TEXT_BUCKETS[-1])
    return int(np.asarray(TEXT_BUCKETS)[np.searchsorted(TEXT_BUCKETS, tokens)].sum())
