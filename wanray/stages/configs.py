"""The configs of the stages: all that a stage knows of its job. No torch, so that engines can make them."""

from dataclasses import dataclass

from wanray.config import OutputConfig, TopologyConfig
from wanray.registry import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtendConfig:
    """Of prompt extension: nothing to choose yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """Of the text encoder."""

    checkpoint: str
    """Folder in Diffusers layout."""
    dtype: str
    """As `numerics.dtype`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiseConfig:
    """Of one denoise pool."""

    pool: str
    """Name of the pool, for the record's topology."""
    checkpoint: str
    transformers: dict[str, str]
    """Expert -> folder name below the checkpoint, in the order of work."""
    model: Model
    boundary: float | None
    """Timestep / 1000 of the expert switch."""
    mode: str
    dtype: str
    noise: str
    topology: TopologyConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeConfig:
    """Of VAE, mp4 and commit; run, model and numerics go into meta.json as they are."""

    checkpoint: str
    output: OutputConfig
    run: str
    model: dict[str, str]
    numerics: dict[str, str]
