"""The networks of pictures: Wan's own classes, small."""

from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock

from tools.demo_model.text import TEXT_DIM
from wanray.registry import Model


def make_vae(model: Model) -> AutoencoderKLWan:
    """Strides and channels are the model's; patches take the place of the first, largest layers."""
    torch.manual_seed(2)
    is_residual = model.vae == "wan2.2"
    patch = model.spatial_stride // 4
    widths: dict[str, Any] = {"base_dim": 16, "dim_mult": [1, 2, 4]}
    if is_residual:
        widths = {"base_dim": 32, "dim_mult": [1, 2, 2]}
    vae = AutoencoderKLWan(
        **widths,
        z_dim=model.latent_channels,
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        patch_size=patch,
        is_residual=is_residual,
        scale_factor_spatial=model.spatial_stride,
        scale_factor_temporal=model.temporal_stride,
        latents_mean=[0.0] * model.latent_channels,
        latents_std=[1.0] * model.latent_channels,
    )
    for module in vae.modules():
        if isinstance(module, WanResidualBlock):  # a block begins as its shortcut: far quicker at first
            torch.nn.init.zeros_(module.conv2.weight)
    return vae


def make_transformer(model: Model) -> WanTransformer3DModel:
    """Small, with every part that the full ones have; its first prediction is zero."""
    torch.manual_seed(3)
    transformer = WanTransformer3DModel(
        patch_size=(1, model.patch_size, model.patch_size),
        num_attention_heads=4,
        attention_head_dim=40,
        in_channels=model.latent_channels,
        out_channels=model.latent_channels,
        text_dim=TEXT_DIM,
        freq_dim=128,
        ffn_dim=640,
        num_layers=6,
        rope_max_seq_len=64,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    return transformer
