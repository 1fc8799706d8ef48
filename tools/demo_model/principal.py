"""Turns a VAE's latents onto their principal axes, and leaves out the channels that then hold nothing.

A world as plain as ours fills a few dimensions of the latents, across all channels. A transformer would have
to learn which, and to reproduce noise exactly in all the others; turned so, the others are channels of their
own.

Shape suffixes: B batch, C channels, T, H, W latent frames, height, width, N cells; O, I outputs and inputs.
"""

from typing import Any, NamedTuple

import torch

LEAST_SHARE = 3e-4
"""Of the latents' variance, for a channel to be kept."""


class Axes(NamedTuple):
    """How to turn."""

    mean: torch.Tensor
    vectors: torch.Tensor
    """Columns are the axes, those of most variance first; zeros for what is left out."""
    std: float
    """Of the channels that are kept, together."""


def principal_axes(latents_BCTHW: torch.Tensor) -> Axes:
    """The axes of such latents."""
    cells_CN = latents_BCTHW.double().transpose(0, 1).flatten(1)
    variances_C, vectors = torch.linalg.eigh(torch.cov(cells_CN))
    variances_C, vectors = variances_C.flip(0), vectors.flip(1)
    is_kept_C = variances_C > LEAST_SHARE * variances_C.sum()
    std = variances_C[is_kept_C].mean().sqrt().item()
    return Axes(cells_CN.mean(1), vectors * is_kept_C, std)


@torch.no_grad()
def turn(vae: Any, axes: Axes) -> None:
    """Let the first and the last layer around the latents do it: what `vae` reconstructs stays the same."""
    mean, vectors, std = axes
    num_channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    weight_OI = encode.weight[:num_channels, :, 0, 0, 0]
    weight_OI.copy_(vectors.T @ weight_OI.double())
    encode.bias[:num_channels] = vectors.T @ (encode.bias[:num_channels].double() - mean)
    weight_OI = decode.weight[:, :, 0, 0, 0]
    decode.bias += weight_OI.double() @ mean
    weight_OI.copy_(weight_OI.double() @ vectors)
    vae.register_to_config(latents_mean=[0.0] * num_channels, latents_std=[round(std, 4)] * num_channels)
