"""The VAE: official Wan2.1 (`wan/modules/vae.py`) and Wan2.2 (`vae2_2.py`) to `AutoencoderKLWan`.

Wan2.1 numbers residual blocks and resamplings in one list; Wan2.2 has a list in each level.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch

from wanray.checkpoint.shapes import TensorShapes
from wanray.models.official.names import rename
from wanray.models.official.vae_statistics import STATISTICS

_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_MIDDLE = {"middle.1": "mid_block.attentions.0"} | {
    f"middle.{place}.{official}": f"mid_block.resnets.{number}.{ours}"
    for number, place in enumerate((0, 2))
    for official, ours in _RESIDUAL.items()
}
_ENDS = {"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"}
_OUTSIDE = {"conv1": "quant_conv", "conv2": "post_quant_conv"} | {
    f"{side}.{official}": f"{side}.{ours}"
    for side in ("encoder", "decoder")
    for official, ours in (_MIDDLE | _ENDS).items()
}
_NESTED = re.compile(r"(en|de)coder\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)")
_FLAT = re.compile(r"(en|de)coder\.(?:down|up)samples\.(\d+)\.(.+)")


def convert(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensor under diffusers' name; unknown ones keep theirs."""
    num_blocks = config["num_res_blocks"]
    if match := _NESTED.fullmatch(name):
        side, level, place, inner = match.groups()
        yield _in_level(side, int(level), int(place), num_blocks, "sampler", inner), tensor
    elif match := _FLAT.fullmatch(name):
        side, place, inner = match.groups()
        if side == "en":
            yield f"encoder.down_blocks.{place}.{_in_block(inner)}", tensor
        else:
            level, number = divmod(int(place), num_blocks + 2)
            yield _in_level(side, level, number, num_blocks, "samplers.0", inner), tensor
    else:
        yield rename(name, _OUTSIDE) or name, tensor


def _in_level(side: str, level: int, place: int, num_blocks: int, sampler: str, inner: str) -> str:
    way, length = ("down", num_blocks) if side == "en" else ("up", num_blocks + 1)
    part = f"resnets.{place}" if place < length else f"{way}{sampler}"
    return f"{side}coder.{way}_blocks.{level}.{part}.{_in_block(inner)}"


def _in_block(inner: str) -> str:
    return rename(inner, _RESIDUAL) or inner


def network_config(shapes: TensorShapes, facts: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `AutoencoderKLWan`, all of which the shapes tell but the statistics of the latents."""
    is_residual = shapes.has("encoder.downsamples.0.downsamples.")
    levels = _nested_levels(shapes) if is_residual else _flat_levels(shapes)
    dim, in_channels = shapes.of("encoder.conv1.weight")[:2]
    out_channels, out_dim = shapes.of("decoder.head.2.weight")[:2]
    multiples = [width // dim for width in _widths(shapes, levels)]
    temporal = [shapes.has(f"{level[-1]}.time_conv.") for level in levels[:-1]]
    z_dim = shapes.of("conv2.weight")[0]
    return {
        "base_dim": dim,
        "decoder_base_dim": out_dim // multiples[0],
        "z_dim": z_dim,
        "dim_mult": multiples,
        "num_res_blocks": len(levels[-1]),
        "temperal_downsample": temporal,
        "is_residual": is_residual,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "patch_size": 2 if is_residual else None,
        "scale_factor_temporal": 2 ** sum(temporal),
        "scale_factor_spatial": 2 ** len(temporal) * (2 if is_residual else 1),
    } | STATISTICS.get(z_dim, {})


def _widths(shapes: TensorShapes, levels: list[list[str]]) -> list[int]:
    return [shapes.of(f"{level[0]}.residual.6.weight")[0] for level in levels]


def _nested_levels(shapes: TensorShapes) -> list[list[str]]:
    """The names of the encoder's parts, level by level; all levels but the last end with a resampling."""
    levels = [f"encoder.downsamples.{level}" for level in range(shapes.count("encoder.downsamples"))]
    return [
        [f"{level}.downsamples.{place}" for place in range(shapes.count(f"{level}.downsamples"))]
        for level in levels
    ]


def _flat_levels(shapes: TensorShapes) -> list[list[str]]:
    levels: list[list[str]] = [[]]
    for place in range(shapes.count("encoder.downsamples")):
        levels[-1].append(f"encoder.downsamples.{place}")
        if shapes.has(f"encoder.downsamples.{place}.resample."):
            levels.append([])
    return levels
