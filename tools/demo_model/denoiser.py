"""Training a transformer: it predicts the velocity from clip to noise, at all noise levels or within a range.

Shape suffixes: B batch, C channels, T latent frames, H, W latent height and width, S tokens, L, D text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.demo_model.latents import Latents
from tools.demo_model.loop import Training
from wanray.registry import Model

LR = 0.01
SHIFT = 3.0
"""Of the noise levels in training, which are even before it."""
BLANK_SHARE = 0.1
"""Of clips without their prompt, for guidance to be able to leave it out."""
IMAGE_SHARE = 0.4
"""Of clips whose first latent frame is given, where the model has a timestep per token."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one training is about."""

    model: Model
    latents: Latents
    embed: Callable[[list[str]], torch.Tensor]
    batch_tokens: int
    """Of latents, in one step."""
    noise_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest sigma that the transformer will work at."""


def train_denoiser(
    network: Any, lesson: Lesson, file: Path, num_steps: int, probe: Callable[[Any], str], device: str
) -> Any:
    """Train all of `network`, whose part `transformer` denoises; returns it with averaged weights.

    probe: words on how good the averaged network is.
    """
    with torch.no_grad():
        network["transformer"].patch_embedding.weight[:, ~lesson.latents.used] = 0
    training = Training(network, file, num_steps, LR, seed=3)
    training.run(
        lambda rng: _loss(network["transformer"], lesson, rng, device), lambda: probe(training.averaged)
    )
    return training.averaged


def _loss(transformer: Any, lesson: Lesson, rng: np.random.Generator, device: str) -> torch.Tensor:
    """Mean squared error of the velocity `noise - clip`, without frames that are given.

    Channels that hold nothing are not seen and not judged: the VAE does not look at them either.
    """
    clean_BCTHW, prompts = lesson.latents.some(rng, lesson.batch_tokens)
    clean_BCTHW = clean_BCTHW.to(device)
    prompts = ["" if rng.random() < BLANK_SHARE else prompt for prompt in prompts]
    sigmas_B = _some_sigmas(rng, len(prompts), lesson.noise_range).to(device)
    noise_BCTHW = torch.from_numpy(rng.standard_normal(clean_BCTHW.shape, np.float32)).to(device)
    sigmas_BCTHW = sigmas_B.view(-1, 1, 1, 1, 1).expand_as(clean_BCTHW[:, :1]).clone()
    if lesson.model.has_token_timesteps:
        given = torch.from_numpy(rng.random(len(prompts)) < IMAGE_SHARE).to(device)
        sigmas_BCTHW[given, :, 0] = 0.0
    is_used_CTHW = lesson.latents.used.to(device).view(-1, 1, 1, 1)
    noisy_BCTHW = (1 - sigmas_BCTHW) * clean_BCTHW + sigmas_BCTHW * noise_BCTHW * is_used_CTHW
    timesteps = timesteps_of(lesson.model, sigmas_BCTHW)
    velocity_BCTHW = transformer(noisy_BCTHW, timesteps, lesson.embed(prompts), return_dict=False)[0]
    is_judged_BCTHW = (sigmas_BCTHW > 0) & is_used_CTHW
    errors_BCTHW = (velocity_BCTHW - (noise_BCTHW - clean_BCTHW)).square() * is_judged_BCTHW
    return errors_BCTHW.sum() / is_judged_BCTHW.sum()


def _some_sigmas(rng: np.random.Generator, count: int, noise_range: tuple[float, float]) -> torch.Tensor:
    """Noise levels within the range, in float32 [B]."""
    low, high = (sigma / (SHIFT - (SHIFT - 1) * sigma) for sigma in noise_range)
    even = rng.uniform(low, high, count)
    return torch.from_numpy(SHIFT * even / (1 + (SHIFT - 1) * even)).float()


def timesteps_of(model: Model, sigmas_BCTHW: torch.Tensor) -> torch.Tensor:
    """Sigma x 1000 of each clip [B], or of each token [B, S] where the model wants that."""
    if not model.has_token_timesteps:
        return sigmas_BCTHW[:, 0, -1, 0, 0] * 1000
    step = model.patch_size
    return sigmas_BCTHW[:, 0, :, ::step, ::step].flatten(1) * 1000
