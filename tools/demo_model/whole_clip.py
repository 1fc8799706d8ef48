"""Wan's VAE over a whole clip at once, for training.

`AutoencoderKLWan` takes a clip four frames at a time with a cache of the frames before. One causal pass over
all frames gives the same numbers faster (compared in `tests/test_demo_training.py`).
Shape suffixes: B batch, C channels, F frames, T latent frames, H, W height and width.
"""

from types import MethodType
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify


def take_whole_clips(vae: AutoencoderKLWan) -> None:
    """Let the resampling layers of `vae` treat the frames that they get as all there are.

    For `encode` and `decode` of this module only: diffusers' own then no longer work with it.
    """
    for module in vae.modules():
        if isinstance(module, WanResample):
            module.forward = MethodType(_resample, module)


def encode(vae: Any, video_BCFHW: torch.Tensor) -> torch.Tensor:
    """The posterior's mean [B, C, T, H, W], not normalised, of clips in -1..1."""
    states = vae.quant_conv(vae.encoder(patchify(video_BCFHW, vae.config.patch_size)))
    return states.chunk(2, dim=1)[0]


def decode(vae: Any, latents_BCTHW: torch.Tensor) -> torch.Tensor:
    """Clips [B, 3, F, H, W] of latents that are not normalised; values beyond -1..1 stay."""
    patches = vae.decoder(vae.post_quant_conv(latents_BCTHW), first_chunk=True)
    return unpatchify(patches, vae.config.patch_size)


def _resample(self: Any, x: torch.Tensor, feat_cache: object = None, feat_idx: object = None) -> torch.Tensor:
    """The first frame stays alone in time; the others are halved or doubled."""
    if self.mode == "upsample3d" and x.shape[2] > 1:
        doubled = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
        x = torch.cat([x[:, :, :1], doubled.transpose(1, 2).transpose(2, 3).flatten(2, 3)], dim=2)
    frames = self.resample(x.transpose(1, 2).flatten(0, 1))
    x = frames.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
    if self.mode == "downsample3d" and x.shape[2] > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)
    return x
