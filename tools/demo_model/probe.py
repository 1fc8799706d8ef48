"""How good a transformer is by now: scores and a picture of prompts that were held out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tools.demo_model.denoiser import timesteps_of
from tools.demo_model.sampling import held_out_scenes, sample, save_grid, tell, to_frames
from tools.demo_model.whole_clip import take_whole_clips
from wanray.registry import Model

NUM_CLIPS = 16
FRAMES, SIDE_PX = 9, 64


class Probe:
    """Samples with a transformer, and with another one where that is not trained to work."""

    def __init__(
        self, model: Model, vae: Any, other: Any, noise_range: tuple[float, float], picture: Path
    ) -> None:
        """other: a transformer for levels outside of `noise_range`; picture: where samples are drawn."""
        take_whole_clips(vae)
        self.model, self.vae, self.other, self.range, self.picture = model, vae, other, noise_range, picture
        cells = SIDE_PX // model.spatial_stride
        self.cells = (model.latent_channels, (FRAMES - 1) // model.temporal_stride + 1, cells, cells)
        self.scenes = held_out_scenes(NUM_CLIPS)

    def __call__(self, transformer: Any, embed: Callable[[list[str]], torch.Tensor]) -> str:
        """The scores in words; the picture is drawn anew."""

        def predict(latents_BCTHW: torch.Tensor, sigma: float, text_BLD: torch.Tensor) -> torch.Tensor:
            expert = transformer if self.range[0] <= sigma <= self.range[1] else self.other
            sigmas_BCTHW = torch.full_like(latents_BCTHW[:, :1], sigma)
            timesteps = timesteps_of(self.model, sigmas_BCTHW)
            return expert(latents_BCTHW, timesteps, text_BLD, return_dict=False)[0]

        clips_BFHWC = to_frames(self.vae, sample(predict, embed, self.scenes, self.cells, seed=11))
        save_grid(clips_BFHWC, self.picture)
        return tell(clips_BFHWC, self.scenes)
