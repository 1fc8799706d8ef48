"""The text encoder: official UMT5 (`wan/modules/t5.py`) to that of transformers."""

import re
from collections.abc import Iterator
from typing import Any

import torch

from wanray.checkpoint.shapes import TensorShapes
from wanray.models.official.names import rename

_OUTSIDE = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
_ATTENTION, _FEED_FORWARD = "0.SelfAttention", "1.DenseReluDense"
_INSIDE = {
    "norm1": "0.layer_norm",
    "attn": _ATTENTION,
    "pos_embedding.embedding": f"{_ATTENTION}.relative_attention_bias",
    "norm2": "1.layer_norm",
    "ffn.gate.0": f"{_FEED_FORWARD}.wi_0",
    "ffn.fc1": f"{_FEED_FORWARD}.wi_1",
    "ffn.fc2": f"{_FEED_FORWARD}.wo",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def convert(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensor under transformers' name; unknown ones keep theirs."""
    if match := _BLOCK.fullmatch(name):
        inner = rename(match[2], _INSIDE)
        yield (f"encoder.block.{match[1]}.layer.{inner}" if inner else name), tensor
    else:
        yield rename(name, _OUTSIDE) or name, tensor


def network_config(shapes: TensorShapes, facts: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `UMT5Config`; every block has relative positions of its own, so they tell the heads."""
    vocabulary, dim = shapes.of("token_embedding.weight")
    buckets, heads = shapes.of("blocks.0.pos_embedding.embedding.weight")
    return {
        "vocab_size": vocabulary,
        "d_model": dim,
        "d_kv": shapes.of("blocks.0.attn.q.weight")[0] // heads,
        "d_ff": shapes.of("blocks.0.ffn.fc1.weight")[0],
        "num_layers": shapes.count("blocks"),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": facts.get("max_dist", 128),
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
        "decoder_start_token_id": 0,
    }
