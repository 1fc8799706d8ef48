"""The configs of the stages: all that a stage knows of its job. No torch, so that engines can make them."""

from dataclasses import dataclass, field
from typing import Any

from wanray.checkpoint import Component
from wanray.config import MediaConfig, OutputConfig, TopologyConfig
from wanray.registry import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmitConfig:
    """Of what asks whether a request is still to be rendered."""

    output_url: str
    run: str
    claim: bool
    claim_expires_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtendConfig:
    """Of prompt extension."""

    method: str
    """`chat` or `qwen`."""
    models: dict[bool, str]
    """With images? -> name at the endpoint, or folder of the checkpoint."""
    templates: dict[str, str]
    """Kind of prompt (`wanray.registry.PROMPT_KINDS`) -> system prompt."""
    language: str
    max_tokens: int
    on_error: str
    cache_url: str
    base_url: str = ""
    api_key_env: str | None = None
    timeout_s: float = 60.0
    retries: int = 4
    requests_per_minute: float | None = None
    """Of one worker."""
    media: MediaConfig = field(default_factory=MediaConfig)

    @property
    def is_local(self) -> bool:
        """Whether the workers themselves compute."""
        return self.method == "qwen"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """Of the text encoder."""

    text_encoder: Component
    tokenizer: str
    """Its folder."""
    mode: str
    """As `numerics.mode`."""
    dtype: str
    """As `numerics.dtype`."""
    int8: bool = False
    """As `numerics.text_int8`."""
    t5: str = "auto"
    """As `encode.t5`."""
    digest: str = ""
    """Of encoder and tokenizer; empty without a cache."""
    cache_url: str | None = None
    """Where embeddings are kept between runs; None: nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionConfig:
    """Of what prepares images, videos, masks and references."""

    vae: Component
    image_encoder: Component | None
    image_processor: str | None
    """Its folder; only `mode` diffusers uses it."""
    model: Model
    mode: str
    dtype: str
    """Of the transformer: what it will round the conditions to is sent so."""
    digest: str = ""
    """Of VAE and image encoder; empty without a cache."""
    cache_url: str | None = None
    """Where conditions are kept between runs; None: nowhere."""
    media: MediaConfig = field(default_factory=MediaConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiseConfig:
    """Of one denoise pool."""

    pool: str
    """Name of the pool, for the record's topology."""
    transformers: dict[str, Component]
    """By expert, in the order of work."""
    scheduler: dict[str, Any]
    """The checkpoint's scheduler config; only `mode` diffusers uses it."""
    model: Model
    boundary: float | None
    """Timestep / 1000 of the expert switch."""
    mode: str
    dtype: str
    noise: str
    swaps: bool
    """Whether one expert at a time is held; each run then does the steps of one."""
    offloads: bool
    """Whether blocks stay in the host's memory and visit the device in turn."""
    topology: TopologyConfig
    attention: str
    """As `denoise.attention`, or `sage`."""
    check_inputs: bool
    """As `denoise.check_inputs`."""
    output_url: str
    """Where the states of clips in work are stored."""
    checkpoint_every_steps: int
    """0: only when told to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentsConfig:
    """Of what reads latents back."""

    url: str
    """The output of the render that saved them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeConfig:
    """Of VAE, video and commit; run, model and numerics go into meta.json as they are."""

    vae: Component
    output: OutputConfig
    run: str
    model: dict[str, str]
    numerics: dict[str, Any]
    media: MediaConfig = field(default_factory=MediaConfig)
    tile_when_out_of_memory: bool = False
