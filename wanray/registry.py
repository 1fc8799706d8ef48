"""The models wanray renders: task, official defaults and sizes. Facts only; no torch, no files.

Defaults are those the official `generate.py` ends up with when a flag is left out (Wan2.1 at 9737cba,
Wan2.2 at 42bf4cf: `wan/configs/*`).
"""

from dataclasses import dataclass

from wanray.errors import ConfigError

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"  # noqa: RUF001
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"  # noqa: RUF001
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"  # noqa: RUF001
)
"""The official negative prompt that Wan2.1 and Wan2.2 share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """Classifier-free guidance scale per expert; models with one expert use the same for both."""

    high: float
    low: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a request gets where neither its row nor the config says otherwise."""

    width: int = 1280
    height: int = 720
    num_frames: int = 81
    fps: float = 16.0
    steps: int = 50
    shift: float | None = 5.0
    """Flow shift of the sigmas; None means the one stored with the checkpoint's scheduler."""
    guidance: Guidance = Guidance(high=5.0, low=5.0)
    negative_prompt: str = NEGATIVE_PROMPT
    solver: str = "unipc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dims:
    """Sizes of one diffusion transformer, for estimates and for telling checkpoints apart."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One row of the registry."""

    name: str
    task: str
    defaults: Defaults
    dims: Dims
    boundary: float | None = None
    """Timestep / 1000 at and above which the high-noise expert works; None for a single expert."""
    spatial_stride: int = 8
    """Pixels per latent cell, each way."""
    temporal_stride: int = 4
    """Frames per latent frame after the first."""
    patch_size: int = 2
    """Latent cells per token, each way."""

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the order in which they work."""
        return ("high", "low") if self.boundary is not None else ("single",)

    @property
    def size_multiple_px(self) -> int:
        """Width and height must be multiples of this many pixels."""
        return self.spatial_stride * self.patch_size


DIMS_1_3B = Dims(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_channels=16)
DIMS_14B = Dims(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_channels=16)

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(name="t2v-1.3b", task="t2v", dims=DIMS_1_3B, defaults=Defaults(width=832, height=480)),
        Model(name="t2v-14b", task="t2v", dims=DIMS_14B, defaults=Defaults()),
        Model(
            name="t2v-a14b",
            task="t2v",
            dims=DIMS_14B,
            boundary=0.875,
            defaults=Defaults(steps=40, shift=12.0, guidance=Guidance(high=4.0, low=3.0)),
        ),
    )
}

DIFFUSERS_DEFAULTS = Defaults(width=832, height=480, shift=None, negative_prompt="")
"""What diffusers' WanPipeline fills in (`numerics.mode=diffusers`); its shift is the checkpoint's own."""


def get_model(name: str) -> Model:
    """The registry row called `name`.

    Raises:
        ConfigError: no model has that name; the message lists those that exist.
    """
    if name not in MODELS:
        raise ConfigError(f"model.name {name!r} is unknown: use one of {', '.join(sorted(MODELS))}")
    return MODELS[name]
