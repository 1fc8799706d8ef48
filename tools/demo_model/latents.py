"""A pool of encoded clips: encoding one takes longer than a training step's share of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.demo_model.clips import FORMATS, SHARES, draw_batch, some_scenes
from tools.demo_model.whole_clip import encode, take_whole_clips

NUM_CLIPS = 12288
"""With half of them the loss was a tenth higher on clips that were not among them."""
BATCH = 16


@dataclass(frozen=True)
class Latents:
    """Normalised latents by format [N, C, T, H, W], each with the prompt of its clip."""

    clips: list[torch.Tensor]
    prompts: list[list[str]]

    @cached_property
    def used(self) -> torch.Tensor:
        """Which channels hold anything."""
        return self.clips[0].abs().amax(dim=(0, 2, 3, 4)) > 0

    def some(self, rng: np.random.Generator, num_tokens: int) -> tuple[torch.Tensor, list[str]]:
        """As many clips of one format as have about so many tokens, and their prompts."""
        form = rng.choice(len(FORMATS), p=SHARES)
        clips = self.clips[form]
        chosen = rng.integers(len(clips), size=max(2, num_tokens // (clips[0, 0].numel() // 4)))
        return clips[chosen], [self.prompts[form][index] for index in chosen]


def encode_clips(vae: Any, file: Path, device: str) -> Latents:
    """The pool; kept in `file`, as encoding takes minutes."""
    if not file.exists():
        take_whole_clips(vae.to(device))
        rng = np.random.default_rng(5)
        pools = [
            _encode(vae, form, round(NUM_CLIPS * share) // BATCH, rng)
            for form, share in zip(FORMATS, SHARES, strict=True)
        ]
        partial = file.with_suffix(".part")
        torch.save(
            {"clips": [clips for clips, _ in pools], "prompts": [prompts for _, prompts in pools]}, partial
        )
        partial.replace(file)
    return Latents(**torch.load(file))


@torch.inference_mode()
def _encode(
    vae: Any, form: tuple[int, int, int], num_batches: int, rng: np.random.Generator
) -> tuple[torch.Tensor, list[str]]:
    mean, std = (
        torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std")
    )
    latents, prompts = [], []
    for _ in range(num_batches):
        scenes = some_scenes(rng, BATCH)
        latents.append((encode(vae, draw_batch(scenes, form, rng).to(vae.device)).cpu() - mean) / std)
        prompts += [scene.some_prompt(rng) for scene in scenes]
    return torch.cat(latents), prompts
