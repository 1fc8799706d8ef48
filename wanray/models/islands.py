"""Float32 islands in a bfloat16 transformer, where the official code computes in float32 under autocast.

What diffusers' bfloat16 does otherwise: it rounds the residual stream, the time embedding with its projection
and the head to bfloat16. Sources: `wan/modules/model.py` of Wan2.1 and Wan2.2 (`WanAttentionBlock.forward`,
`Head.forward`, `WanModel.forward`), `wan/modules/vace_model.py`. All is done by hooks on submodules, which
stay when attention processors or the forward of the whole are replaced. Shape suffixes: B batch, L tokens,
D width.
"""

from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from torch import nn

ISLAND_PARAMETERS = (
    "norm1",
    "norm2",
    "norm3",
    "norm_added_k",
    "norm_k",
    "norm_q",
    "pos_embed",
    "scale_shift_table",
    "time_embedder",
    "time_proj",
)
"""Parts of the dotted names of parameters to keep in float32; the head, `proj_out`, is one at the top only:
VACE's blocks have projections of that name that compute in bfloat16."""


def is_island(name: str) -> bool:
    """Whether the parameter called `name` (diffusers' names) is float32 in official numerics."""
    parts = name.split(".")
    return parts[0] == "proj_out" or any(part in ISLAND_PARAMETERS for part in parts)


def add_float32_islands(transformer: WanTransformer3DModel | WanVACETransformer3DModel) -> None:
    """Compute as the official code does: matrices in bfloat16, what lies between them in float32.

    Nothing for a float32 transformer. The residual stream [B, L, D], the time embedding and the model's
    output become float32; text and image embeddings may come in either dtype. Weights that were rounded
    when they were loaded stay rounded: load those of which `is_island` holds as float32.
    """
    if transformer.patch_embedding.weight.dtype == torch.float32:
        return
    for name, parameter in transformer.named_parameters():
        if is_island(name):
            parameter.data = parameter.data.float()
    for module in transformer.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            module.register_forward_pre_hook(_input_as_weight)
        elif isinstance(module, nn.RMSNorm):
            module.register_forward_pre_hook(_input_as_weight)
            module.register_forward_hook(_output_in_bfloat16)
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(_output_in_float32)
    transformer.condition_embedder.register_forward_pre_hook(_text_in_float32)


def _input_as_weight(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What autocast does for a matrix product, from the weight's dtype instead of a context."""
    return (args[0].to(module.weight.dtype), *args[1:])


def _output_in_bfloat16(module: nn.Module, args: tuple[Any, ...], output_BLD: torch.Tensor) -> torch.Tensor:
    """Queries and keys must fit the values: attention kernels take one dtype, and that is bfloat16.

    The official code rounds before it applies the norm's weight and again after the rotation; here the first
    rounding comes after the weight.
    """
    return output_BLD.bfloat16()


def _output_in_float32(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """The patches are where the residual stream begins; diffusers' blocks then keep its dtype."""
    return output.float()


def _text_in_float32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """diffusers rounds the time embedding to the dtype of the text, which its own Linear rounds again."""
    timestep, text_BLD, *rest = args
    return (timestep, text_BLD.float(), *rest)
