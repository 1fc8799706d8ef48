"""The FLOP model of Wan's transformer: multiply-adds counted as two operations.

Per forward: linear layers 2 * parameters * tokens, self-attention 4 * tokens^2 * dim per layer,
cross-attention 4 * tokens * 512 * dim per layer. A VACE block counts as a layer.
"""

from wanray.registry import Dims, Model

TEXT_TOKENS = 512


def num_tokens(width: int, height: int, num_frames: int, model: Model) -> int:
    """Tokens of one forward."""
    frames = (num_frames - 1) // model.temporal_stride + 1
    return frames * (width // model.size_multiple_px) * (height // model.size_multiple_px)


def forward_tflop(tokens: int, dims: Dims) -> float:
    """TFLOP of one transformer forward, batch 1."""
    num_blocks = dims.num_layers + dims.num_vace_blocks
    linear = 2 * tokens * num_blocks * (6 * dims.dim**2 + 2 * dims.dim * dims.ffn_dim)
    self_attention = 4 * tokens**2 * dims.dim * num_blocks
    cross_attention = 4 * tokens * TEXT_TOKENS * dims.dim * num_blocks
    return (linear + self_attention + cross_attention) / 1e12
