"""Latents to frames through the VAE, in float32. Shape suffixes: B batch, C channels, T/F frames, H, W."""

import torch
from diffusers import AutoencoderKLWan
from diffusers.utils import logging as diffusers_logging

from wanray.models.load import load_network


def load_vae(folder: str, device: str) -> AutoencoderKLWan:
    """The VAE, always in float32."""
    diffusers_logging.disable_progress_bar()
    return load_network(AutoencoderKLWan, folder, torch.float32, device)


@torch.inference_mode()
def decode_latents(vae: AutoencoderKLWan, latents_BCTHW: torch.Tensor) -> torch.Tensor:
    """Frames float32 [F, 3, H, W] in 0..1 of one clip's normalised latents [1, C, T, H, W].

    The latent statistics are applied as `latents / (1 / std) + mean`, the form whose rounding both the
    official code and diffusers share.
    """
    latents_BCTHW = latents_BCTHW.to(vae.device, vae.dtype)
    mean_BCTHW = torch.tensor(vae.config["latents_mean"]).view(1, -1, 1, 1, 1).to(latents_BCTHW)
    inverse_BCTHW = 1.0 / torch.tensor(vae.config["latents_std"]).view(1, -1, 1, 1, 1).to(latents_BCTHW)
    video_BCFHW = vae.decode(latents_BCTHW / inverse_BCTHW + mean_BCTHW, return_dict=False)[0]
    return (video_BCFHW[0].permute(1, 0, 2, 3) * 0.5 + 0.5).clamp(0, 1)


def to_uint8(frames_FCHW: torch.Tensor) -> torch.Tensor:
    """Frames 0..1 as uint8 [F, H, W, C] on the CPU, truncated as the official `cache_video` does."""
    return (frames_FCHW * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
