"""Quick samples while training, without the product: Euler steps, guidance, pixels, scores.

Shape suffixes: B batch, C channels, T latent frames, H, W height and width; F frames.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tools.demo_model.clips import HELD_OUT, some_scenes
from tools.demo_model.scenes import Scene
from tools.demo_model.scorer import look
from tools.demo_model.whole_clip import decode

STEPS = 16
SHIFT = 5.0
GUIDANCE = 4.0

Predict = Callable[[torch.Tensor, float, torch.Tensor], torch.Tensor]
"""(latents, sigma, embeddings) -> velocity."""


@torch.inference_mode()
def sample(
    predict: Predict,
    embed: Callable[[list[str]], torch.Tensor],
    scenes: list[Scene],
    cells: tuple[int, ...],
    seed: int,
) -> torch.Tensor:
    """Latents of a clip per scene; cells: [C, T, H, W] of each."""
    noise = np.random.default_rng(seed).standard_normal((len(scenes), *cells), np.float32)
    told, blank = embed([scene.prompt for scene in scenes]), embed([""] * len(scenes))
    latents_BCTHW = torch.from_numpy(noise).to(told.device)
    even = np.linspace(1, 0, STEPS + 1)
    sigmas = SHIFT * even / (1 + (SHIFT - 1) * even)
    for sigma, following in itertools.pairwise(sigmas):
        with_prompt, without = predict(latents_BCTHW, sigma, told), predict(latents_BCTHW, sigma, blank)
        velocity_BCTHW = without + GUIDANCE * (with_prompt - without)
        latents_BCTHW = latents_BCTHW + (following - sigma) * velocity_BCTHW
    return latents_BCTHW


@torch.inference_mode()
def to_frames(vae: Any, latents_BCTHW: torch.Tensor) -> np.ndarray:
    """Clips [B, F, H, W, 3] in 0..1 of normalised latents; `vae` takes whole clips."""
    mean, std = (
        torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std")
    )
    video_BCFHW = decode(vae, latents_BCTHW * std.to(latents_BCTHW) + mean.to(latents_BCTHW))
    return (video_BCFHW.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 4, 1).cpu().numpy()


def held_out_scenes(count: int) -> list[Scene]:
    """Scenes that no training sees."""
    return some_scenes(np.random.default_rng(17), count, HELD_OUT)


def tell(clips_BFHWC: np.ndarray, scenes: list[Scene]) -> str:
    """How many clips show what their scenes say."""
    seen = [look(clip_FHWC) for clip_FHWC in clips_BFHWC]
    names = ("colour", "shape", "direction", "background")
    right = {
        name: sum(getattr(s, name) == getattr(t, name) for s, t in zip(seen, scenes, strict=True))
        for name in names
    }
    return ", ".join(f"{name} {count}/{len(scenes)}" for name, count in right.items())


def save_grid(clips_BFHWC: np.ndarray, file: Path, zoom: int = 2) -> None:
    """A row of five frames for each of the clips."""
    chosen = np.linspace(0, clips_BFHWC.shape[1] - 1, 5).round().astype(int)
    rows = [np.concatenate(list(clip_FHWC[chosen]), axis=1) for clip_FHWC in clips_BFHWC]
    picture = Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8))
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(file)
