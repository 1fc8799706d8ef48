"""The tensors that pass between stages, and nothing that is slow to import.

Shape suffixes: B batch (1), C latent channels, T, H, W latent frames, height, width, L tokens, D text width.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""By the names that `numerics.dtype` uses."""

MAX_TOKENS = 512
"""Text tokens of every forward; Wan attends to the zeros behind a shorter text."""


@dataclass(frozen=True, slots=True)
class DenoiseState:
    """A request between two denoise steps.

    latents_BCTHW: float32. step: steps done. history, scalars: the solver's (`Solver.history`).
    """

    latents_BCTHW: torch.Tensor
    step: int = 0
    history: dict[str, torch.Tensor] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)


def pad_text(text_LD: torch.Tensor) -> torch.Tensor:
    """[1, MAX_TOKENS, D]: the embedding with zeros behind it; Wan attends to them."""
    padded_BLD = text_LD.new_zeros(1, MAX_TOKENS, text_LD.shape[1])
    padded_BLD[0, : text_LD.shape[0]] = text_LD
    return padded_BLD
