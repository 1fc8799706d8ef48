"""How conditions enter the transformer: as channels, as image tokens, as a control branch, as a fixed frame.

Shape suffixes: B batch (1), C channels, T, H, W latent frames, height, width, N images, L tokens, D width.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from wanray.models.conditions import Conditions


@dataclass(frozen=True, slots=True)
class Steering:
    """Everything but latents, timestep and text that a forward takes."""

    conditions: Conditions = field(default_factory=dict)
    """On the transformer's device."""
    context_scale: float = 1.0
    has_exact_scale: bool = True
    """Whether the scale stays float32, as officially; diffusers rounds it to the transformer's dtype."""
    has_token_timesteps: bool = False

    def pin(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """The latents with the first frame that is given; before the first step and after each."""
        first_BCTHW = self.conditions.get("first_latents")
        if first_BCTHW is None:
            return latents_BCTHW
        return torch.cat([first_BCTHW, latents_BCTHW[:, :, 1:]], dim=2)

    def channels(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """The transformer's input: the latents, with mask and image latents behind them."""
        image_BCTHW = self.conditions.get("image_latents")
        return latents_BCTHW if image_BCTHW is None else torch.cat([latents_BCTHW, image_BCTHW], dim=1)

    def timestep(self, timestep: torch.Tensor, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """[B], or [B, tokens] where each has its own: 0 for those of a first frame that is given."""
        if not self.has_token_timesteps:
            return timestep.expand(latents_BCTHW.shape[0])
        frames_T = torch.ones(latents_BCTHW.shape[2], device=latents_BCTHW.device)
        if "first_latents" in self.conditions:
            frames_T[0] = 0
        tokens = (latents_BCTHW.shape[3] // 2) * (latents_BCTHW.shape[4] // 2)
        return (frames_T * timestep).repeat_interleave(tokens)[None]

    def arguments(self, transformer: Any) -> dict[str, torch.Tensor]:
        """Further keyword arguments of the forward, in the transformer's dtype."""
        features_NLD, control_BCTHW = (self.conditions.get(name) for name in ("image_features", "control"))
        arguments = {}
        if features_NLD is not None:
            arguments["encoder_hidden_states_image"] = features_NLD.to(transformer.dtype)
        if control_BCTHW is not None:
            dtype = torch.float32 if self.has_exact_scale else transformer.dtype
            scale = torch.full((len(transformer.config.vace_layers),), self.context_scale)
            arguments["control_hidden_states"] = control_BCTHW.to(transformer.dtype)
            arguments["control_hidden_states_scale"] = scale.to(control_BCTHW.device, dtype)
        return arguments
