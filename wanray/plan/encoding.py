"""How much there is to encode, and how many workers do it as fast as the gangs denoise."""

import math

import numpy as np

from wanray.checkpoint import Component
from wanray.checkpoint.shapes import read_shapes
from wanray.config import RenderConfig
from wanray.registry import Model
from wanray.sizing import TEXT_BUCKETS

BYTES_PER_TOKEN = 4
"""Of UTF-8 in UMT5's vocabulary: English has four characters per token, Chinese one and a half."""
EXTENDED_BYTES = 800
"""Of an extended prompt, whose length is not known before."""


def encode_work_s(config: RenderConfig, model: Model, encoder: Component, text_bytes: np.ndarray) -> float:
    """Seconds that one worker would take for all prompts of these lengths."""
    estimate, resources = config.estimate, config.pools.encode.resources or {}
    if estimate.encode_s is not None:
        return len(text_bytes) * estimate.encode_s
    if config.extension.method != "none":
        text_bytes = np.full_like(text_bytes, EXTENDED_BYTES)
    gets_gpu = resources.get("GPU", 0) > 0 if resources else bool(model.inputs) or config.encode.t5 == "gpu"
    has_gpu = gets_gpu and config.encode.t5 != "cpu"
    cpu_tflops = estimate.cpu_tflops * max(1.0, resources.get("CPU", 1))
    speed = estimate.peak_tflops * estimate.mfu if has_gpu else cpu_tflops
    return 2 * num_linear(encoder) * _num_padded(text_bytes) / 1e12 / speed


def workers_to_feed(encode_s: float, denoise_s: float) -> int:
    """Workers that encode in `denoise_s` seconds what one encodes in `encode_s`."""
    return max(1, math.ceil(encode_s / denoise_s)) if denoise_s else 1


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
