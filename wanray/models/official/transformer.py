"""The diffusion transformer: official `WanModel` and `VaceWanModel` to those of diffusers.

Official: `wan/modules/model.py`, `vace_model.py`. Only the query and key norms of the cross attention and the
norm before it have weights; diffusers numbers that norm 2, the official code 3.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from wanray.checkpoint.official import num_heads
from wanray.checkpoint.shapes import TensorShapes
from wanray.models.official.names import rename

_CONDITION = "condition_embedder"
_IMAGE = f"{_CONDITION}.image_embedder"
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "vace_patch_embedding": "vace_patch_embedding",
    "text_embedding.0": f"{_CONDITION}.text_embedder.linear_1",
    "text_embedding.2": f"{_CONDITION}.text_embedder.linear_2",
    "time_embedding.0": f"{_CONDITION}.time_embedder.linear_1",
    "time_embedding.2": f"{_CONDITION}.time_embedder.linear_2",
    "time_projection.1": f"{_CONDITION}.time_proj",
    "img_emb.emb_pos": f"{_IMAGE}.pos_embed",
    "img_emb.proj.0": f"{_IMAGE}.norm1",
    "img_emb.proj.1": f"{_IMAGE}.ff.net.0.proj",
    "img_emb.proj.3": f"{_IMAGE}.ff.net.2",
    "img_emb.proj.4": f"{_IMAGE}.norm2",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
_ATTENTION = {
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "o": "to_out.0",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "k_img": "add_k_proj",
    "v_img": "add_v_proj",
    "norm_k_img": "norm_added_k",
}
_INSIDE = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "before_proj": "proj_in",
    "after_proj": "proj_out",
} | {
    f"{official}.{part}": f"{ours}.{new}"
    for official, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
    for part, new in _ATTENTION.items()
}
_BLOCK = re.compile(r"((?:vace_)?blocks\.\d+)\.(.+)")


def convert(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensor under diffusers' name; unknown ones keep theirs."""
    if match := _BLOCK.fullmatch(name):
        inner = rename(match[2], _INSIDE)
        yield (f"{match[1]}.{inner}" if inner else name), tensor
    else:
        yield rename(name, _OUTSIDE) or name, tensor


def network_config(shapes: TensorShapes, facts: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the diffusers class; `facts` is `config.json`, needed where heads are not 128 wide."""
    dim, in_channels, *patch_size = shapes.of("patch_embedding.weight")
    heads = num_heads(shapes, facts)
    config: dict[str, Any] = {
        "patch_size": tuple(patch_size),
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": in_channels,
        "out_channels": shapes.of("head.head.weight")[0] // math.prod(patch_size),
        "text_dim": shapes.of("text_embedding.0.weight")[1],
        "freq_dim": shapes.of("time_embedding.0.weight")[1],
        "ffn_dim": shapes.of("blocks.0.ffn.0.weight")[0],
        "num_layers": shapes.count("blocks"),
        "cross_attn_norm": shapes.has("blocks.0.norm3."),
        "qk_norm": "rms_norm_across_heads",
        "eps": facts.get("eps", 1e-6),
    }
    return config | _image_config(shapes, dim) | _vace_config(shapes, facts)


def is_vace(shapes: TensorShapes) -> bool:
    """Whether there is a control branch."""
    return shapes.has("vace_blocks.")


def _image_config(shapes: TensorShapes, dim: int) -> dict[str, Any]:
    if not shapes.has("img_emb."):
        return {}
    config = {"image_dim": shapes.of("img_emb.proj.0.weight")[0], "added_kv_proj_dim": dim}
    if shapes.has("img_emb.emb_pos"):
        config["pos_embed_seq_len"] = shapes.of("img_emb.emb_pos")[1]
    return config


def _vace_config(shapes: TensorShapes, facts: dict[str, Any]) -> dict[str, Any]:
    if not is_vace(shapes):
        return {}
    blocks, layers = shapes.count("vace_blocks"), shapes.count("blocks")
    evenly = [number * (layers // blocks) for number in range(blocks)]
    return {
        "vace_layers": facts.get("vace_layers") or evenly,
        "vace_in_channels": shapes.of("vace_patch_embedding.weight")[1],
    }
