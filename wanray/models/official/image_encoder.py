"""The image encoder: the visual half of the official CLIP (`wan/modules/clip.py`) to that of transformers.

The file also holds the text half, which nothing uses.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from wanray.checkpoint.shapes import TensorShapes
from wanray.models.official.names import rename

HEAD_DIM = 80
UNUSED = ("textual.", "log_scale", "visual.head")

_OUTSIDE = {
    "visual.patch_embedding": "embeddings.patch_embedding",
    "visual.pre_norm": "pre_layrnorm",
    "visual.post_norm": "post_layernorm",
}
_INSIDE = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
_BLOCK = re.compile(r"visual\.transformer\.(\d+)\.(.+)")


def convert(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensor under transformers' names, which split query, key and value; unknown ones keep theirs."""
    if name.startswith(UNUSED):
        return
    if match := _BLOCK.fullmatch(name):
        yield from _in_block(f"encoder.layers.{match[1]}", match[2], name, tensor)
    elif name == "visual.cls_embedding":
        yield "embeddings.class_embedding", tensor.flatten()
    elif name == "visual.pos_embedding":
        yield "embeddings.position_embedding.weight", tensor[0]
    else:
        yield rename(name, _OUTSIDE) or name, tensor


def _in_block(block: str, inner: str, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if inner.startswith("attn.to_qkv."):
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{block}.self_attn.{letter}_proj.{inner.removeprefix('attn.to_qkv.')}", part
    else:
        renamed = rename(inner, _INSIDE)
        yield (f"{block}.{renamed}" if renamed else name), tensor


def network_config(shapes: TensorShapes, facts: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `CLIPVisionConfig`; heads are 80 wide unless `facts` tells their number."""
    dim, _, patch_size, _ = shapes.of("visual.patch_embedding.weight")
    tokens = shapes.of("visual.pos_embedding")[1]
    return {
        "hidden_size": dim,
        "intermediate_size": shapes.of("visual.transformer.0.mlp.0.weight")[0],
        "num_hidden_layers": shapes.count("visual.transformer"),
        "num_attention_heads": facts.get("vision_heads") or max(1, dim // HEAD_DIM),
        "image_size": math.isqrt(tokens - 1) * patch_size,
        "patch_size": patch_size,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }
