"""Training a VAE: as an autoencoder with a little noise on its latents, which are then normalised.

No sampling of the posterior and no clamp before the loss: both kept small VAEs from learning colours.
Shape suffixes: B batch, C channels, F frames, T latent frames, H, W height and width.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from tools.demo_model.clips import HELD_OUT, draw_batch, some_form, some_scenes
from tools.demo_model.loop import Training
from tools.demo_model.networks import make_vae
from tools.demo_model.principal import principal_axes, turn
from tools.demo_model.whole_clip import decode, encode, take_whole_clips
from wanray.registry import Model

NUM_STEPS = {"wan2.1": 4000, "wan2.2": 5500}
LR = 0.02
BATCH_FRAMES = 36
"""So many frames make a batch: four short clips or two long ones."""
NOISE = 0.08
SQUARES = 10.0
"""Weight of squared errors, which are those of edges, against absolute ones, which are those of plains."""


def train_vae(model: Model, file: Path, device: str) -> AutoencoderKLWan:
    """The trained VAE, whose config has the statistics of its latents, in diffusers' own form."""
    vae: Any = make_vae(model)
    take_whole_clips(vae)
    training = Training(vae.to(device), file, NUM_STEPS[model.vae], LR, seed=1)
    training.run(
        lambda rng: _loss(vae, rng, device), lambda: f"PSNR {held_out_psnr(training.averaged, device):.2f} dB"
    )
    return _turned(model, training.averaged, device)


def held_out_psnr(vae: torch.nn.Module, device: str, count: int = 16) -> float:
    """The mean PSNR in dB of clips that no training has seen."""
    rng = np.random.default_rng(99)
    video_BCFHW = draw_batch(some_scenes(rng, count, HELD_OUT), (64, 64, 9), rng).to(device)
    with torch.inference_mode():
        errors_BCFHW = (decode(vae, encode(vae, video_BCFHW)).clamp(-1, 1) - video_BCFHW) / 2
    return (-10 * errors_BCFHW.square().mean(dim=(1, 2, 3, 4)).log10()).mean().item()


def _loss(vae: AutoencoderKLWan, rng: np.random.Generator, device: str) -> torch.Tensor:
    form = some_form(rng)
    video_BCFHW = draw_batch(some_scenes(rng, BATCH_FRAMES // form[2]), form, rng).to(device)
    latents_BCTHW = encode(vae, video_BCFHW)
    noise_BCTHW = torch.from_numpy(rng.standard_normal(latents_BCTHW.shape, np.float32)).to(device)
    errors_BCFHW = decode(vae, latents_BCTHW + NOISE * noise_BCTHW) - video_BCFHW
    too_large = (latents_BCTHW.square().mean() - 1).clamp(min=0)
    return errors_BCFHW.abs().mean() + SQUARES * errors_BCFHW.square().mean() + 1e-3 * too_large


@torch.inference_mode()
def _turned(model: Model, trained: torch.nn.Module, device: str) -> AutoencoderKLWan:
    """A VAE whose channels are the principal axes of 256 clips."""
    rng = np.random.default_rng(7)
    batches = [draw_batch(some_scenes(rng, 16), (64, 64, 9), rng).to(device) for _ in range(16)]
    latents_BCTHW = torch.cat([encode(trained, batch) for batch in batches])
    vae = make_vae(model)
    vae.load_state_dict(trained.state_dict())
    turn(vae, principal_axes(latents_BCTHW.cpu()))
    return vae.eval()
