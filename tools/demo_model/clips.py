"""Batches of clips for training, and a few that are held out."""

import numpy as np
import torch

from tools.demo_model.scenes import RADII, Scene, draw, split_scenes

TRAINED, HELD_OUT = split_scenes()
FORMATS = ((64, 64, 9), (96, 64, 9), (64, 64, 17), (96, 64, 17))
"""Width and height in pixels, frames."""
SHARES = (0.5, 0.25, 0.15, 0.1)


def some_scenes(rng: np.random.Generator, count: int, scenes: list[Scene] = TRAINED) -> list[Scene]:
    """Scenes that may name a size."""
    chosen = [scenes[index] for index in rng.integers(len(scenes), size=count)]
    sizes = [list(RADII)[index] for index in rng.integers(len(RADII), size=count)]
    return [scene.of_size(size) for scene, size in zip(chosen, sizes, strict=True)]


def draw_batch(scenes: list[Scene], form: tuple[int, int, int], rng: np.random.Generator) -> torch.Tensor:
    """A clip of each scene, float32 [B, 3, F, H, W] in -1..1."""
    clips = np.stack([draw(scene, *form, rng) for scene in scenes])
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3) * 2 - 1


def some_form(rng: np.random.Generator) -> tuple[int, int, int]:
    """A format, the small ones more often."""
    return FORMATS[rng.choice(len(FORMATS), p=SHARES)]
