"""The models wanray renders: tasks, inputs, official defaults and sizes. Facts only; no torch, no files.

Defaults are those the official `generate.py` ends up with when a flag is left out (Wan2.1 at 9737cba,
Wan2.2 at 42bf4cf: `wan/configs/*`).
"""

from dataclasses import dataclass, field, replace

from wanray.errors import ConfigError

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"  # noqa: RUF001
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"  # noqa: RUF001
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"  # noqa: RUF001
)
"""The official negative prompt that Wan2.1 and Wan2.2 share."""


FIRST_FRAME_NEGATIVE_PROMPT = f"镜头晃动，{NEGATIVE_PROMPT}"  # noqa: RUF001
"""Wan2.1's for image to video."""
TWO_FRAME_NEGATIVE_PROMPT = f"镜头切换，{FIRST_FRAME_NEGATIVE_PROMPT}"  # noqa: RUF001
"""Wan2.1's for first and last frame to video."""


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
    shift_by_area: dict[int, float] = field(default_factory=dict)
    """Asked-for area in pixels -> shift, where that differs from `shift`."""
    guidance: Guidance = Guidance(high=5.0, low=5.0)
    negative_prompt: str = NEGATIVE_PROMPT
    solver: str = "unipc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a request needs besides its numbers, as manifest columns."""

    name: str
    summary: str
    required: tuple[str, ...] = ()
    """Media columns without which there is nothing to render."""
    optional: tuple[str, ...] = ()
    """Columns that it may have besides those every task takes."""
    min_frames: int = 1
    max_frames: int | None = None


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="t2v", summary="text to video"),
        Task(name="t2i", summary="text to image", max_frames=1),
        Task(name="i2v", summary="first frame to video", required=("image",), optional=("max_area",)),
        Task(
            name="flf2v",
            summary="first and last frame to video",
            required=("image", "last_image"),
            optional=("max_area",),
            min_frames=5,
        ),
        Task(
            name="vace",
            summary="video, mask and reference images to video",
            optional=(
                "video",
                "mask",
                "video_sampling",
                "image",
                "last_image",
                "key_images",
                "key_frames",
                "reference_images",
                "context_scale",
                "max_area",
            ),
        ),
    )
}


PROMPT_KINDS = ("t2v", "i2v", "i2v_empty", "flf2v", "vace")
"""Kinds of prompts that a language model is told to extend in different ways."""


def prompt_kind(task: str, has_prompt: bool) -> str:
    """The kind of a prompt (`PROMPT_KINDS`); `i2v_empty`: the image is all there is."""
    if task == "i2v" and not has_prompt:
        return "i2v_empty"
    return "t2v" if task == "t2i" else task


@dataclass(frozen=True, kw_only=True, slots=True)
class Dims:
    """Sizes of one diffusion transformer, for estimates and for telling checkpoints apart."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int
    num_vace_blocks: int = 0
    """Blocks of the control branch beside the layers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One row of the registry."""

    name: str
    tasks: tuple[str, ...]
    """Names in `TASKS`; the first is the one of a request with nothing but a prompt, if it takes that."""
    defaults: Defaults
    dims: Dims
    sizes: tuple[str, ...]
    """Sizes that the official command line accepts; other multiples of `size_multiple_px` render too."""
    repository: str
    """Of the official weights, on Hugging Face and ModelScope alike."""
    boundary: float | None = None
    """Timestep / 1000 at and above which the high-noise expert works; None for a single expert."""
    vae: str = "wan2.1"
    """`wan2.1` (16 channels, stride 8) or `wan2.2` (48 channels, stride 16)."""
    has_image_encoder: bool = False
    """Whether the transformer attends to CLIP features of the images."""
    has_image_latents: bool = False
    """Whether mask and latents of the images are channels of the transformer's input."""
    has_token_timesteps: bool = False
    """Whether every token has its own timestep; image latents then replace those of the first frame."""
    takes_blank_prompt: bool = False
    """Whether an empty prompt is a prompt: the image tells enough."""
    alias: str = ""
    """A further value of the column `task`: the official name of several, which the inputs tell apart."""
    patch_size: int = 2
    """Latent cells per token, each way."""
    temporal_stride: int = 4
    """Frames per latent frame after the first."""

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the order in which they work."""
        return ("high", "low") if self.boundary is not None else ("single",)

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent cell, each way."""
        return {"wan2.1": 8, "wan2.2": 16}[self.vae]

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that are denoised."""
        return {"wan2.1": 16, "wan2.2": 48}[self.vae]

    @property
    def size_multiple_px(self) -> int:
        """Width and height must be multiples of this many pixels."""
        return self.spatial_stride * self.patch_size

    @property
    def inputs(self) -> frozenset[str]:
        """Columns that at least one of its tasks takes besides those that every task takes."""
        return frozenset(
            column for name in self.tasks for column in (*TASKS[name].required, *TASKS[name].optional)
        )


DIMS_1_3B = Dims(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_channels=16)
DIMS_5B = Dims(dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_channels=48)
DIMS_14B = Dims(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_channels=16)
DIMS_14B_IMAGE = replace(DIMS_14B, in_channels=36)

SIZES_480P = ("832x480", "480x832")
SIZES_ALL = ("1280x720", "720x1280", *SIZES_480P)
SIZES_5B = ("1280x704", "704x1280")
SHIFT_480P = {832 * 480: 3.0}
"""Wan2.1's image to video takes a smaller shift at 480p."""

I2V_DEFAULTS = Defaults(steps=40, negative_prompt=FIRST_FRAME_NEGATIVE_PROMPT, shift_by_area=SHIFT_480P)

_ROWS = (
    Model(
        name="t2v-1.3b",
        tasks=("t2v", "t2i"),
        dims=DIMS_1_3B,
        sizes=SIZES_480P,
        repository="Wan-AI/Wan2.1-T2V-1.3B",
        defaults=Defaults(width=832, height=480),
    ),
    Model(
        name="t2v-14b",
        tasks=("t2v", "t2i"),
        dims=DIMS_14B,
        sizes=SIZES_ALL,
        repository="Wan-AI/Wan2.1-T2V-14B",
        defaults=Defaults(),
    ),
    Model(
        name="t2i-14b",
        tasks=("t2i", "t2v"),
        dims=DIMS_14B,
        sizes=(*SIZES_ALL, "1024x1024"),
        repository="Wan-AI/Wan2.1-T2V-14B",
        defaults=Defaults(),
    ),
    Model(
        name="i2v-14b-480p",
        tasks=("i2v",),
        dims=DIMS_14B_IMAGE,
        sizes=SIZES_480P,
        repository="Wan-AI/Wan2.1-I2V-14B-480P",
        has_image_encoder=True,
        has_image_latents=True,
        defaults=replace(I2V_DEFAULTS, width=832, height=480),
    ),
    Model(
        name="i2v-14b-720p",
        tasks=("i2v",),
        dims=DIMS_14B_IMAGE,
        sizes=SIZES_ALL,
        repository="Wan-AI/Wan2.1-I2V-14B-720P",
        has_image_encoder=True,
        has_image_latents=True,
        defaults=I2V_DEFAULTS,
    ),
    Model(
        name="flf2v-14b",
        tasks=("flf2v",),
        dims=DIMS_14B_IMAGE,
        sizes=SIZES_ALL,
        repository="Wan-AI/Wan2.1-FLF2V-14B-720P",
        has_image_encoder=True,
        has_image_latents=True,
        defaults=Defaults(shift=16.0, negative_prompt=TWO_FRAME_NEGATIVE_PROMPT),
    ),
    Model(
        name="vace-1.3b",
        tasks=("vace",),
        dims=replace(DIMS_1_3B, num_vace_blocks=15),
        sizes=SIZES_480P,
        repository="Wan-AI/Wan2.1-VACE-1.3B",
        defaults=Defaults(width=832, height=480, shift=16.0),
    ),
    Model(
        name="vace-14b",
        tasks=("vace",),
        dims=replace(DIMS_14B, num_vace_blocks=8),
        sizes=SIZES_ALL,
        repository="Wan-AI/Wan2.1-VACE-14B",
        defaults=Defaults(shift=16.0),
    ),
    Model(
        name="t2v-a14b",
        tasks=("t2v", "t2i"),
        dims=DIMS_14B,
        sizes=SIZES_ALL,
        repository="Wan-AI/Wan2.2-T2V-A14B",
        boundary=0.875,
        defaults=Defaults(steps=40, shift=12.0, guidance=Guidance(high=4.0, low=3.0)),
    ),
    Model(
        name="i2v-a14b",
        tasks=("i2v", "flf2v"),
        dims=DIMS_14B_IMAGE,
        sizes=SIZES_ALL,
        repository="Wan-AI/Wan2.2-I2V-A14B",
        boundary=0.9,
        has_image_latents=True,
        takes_blank_prompt=True,
        defaults=Defaults(steps=40, guidance=Guidance(high=3.5, low=3.5)),
    ),
    Model(
        name="ti2v-5b",
        tasks=("t2v", "i2v", "t2i"),
        dims=DIMS_5B,
        sizes=SIZES_5B,
        repository="Wan-AI/Wan2.2-TI2V-5B",
        vae="wan2.2",
        has_token_timesteps=True,
        alias="ti2v",
        defaults=Defaults(height=704, num_frames=121, fps=24.0),
    ),
)

MODELS: dict[str, Model] = {model.name: model for model in _ROWS}

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
