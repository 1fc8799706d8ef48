"""One network of a checkpoint, as far as files tell: what a worker needs to load it and nothing else."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """Where the weights of one network lie, and what their shapes cannot tell."""

    role: str
    """`transformer`, `text_encoder`, `image_encoder` or `vae`."""
    layout: str
    """`diffusers` or `official`: how files and tensors are named."""
    path: str
    """The folder (Diffusers) or file (official) that messages name."""
    files: tuple[str, ...]
    """Absolute paths of the weight files; no role reads those of another."""
    config: dict[str, Any] = field(default_factory=dict)
    """Diffusers: its `config.json`. Official: `config.json` of the transformer, and its part of
    `wanray_tiny.json` where a checkpoint has one."""
