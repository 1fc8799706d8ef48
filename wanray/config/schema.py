"""Every key of a configuration file, its type, its default and its meaning.

Checks of single values stand here; what needs a manifest, a checkpoint or a cluster is checked by those
who open them. A message starts with the key as the user writes it; `load` adds the file.
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from wanray.config.checks import check_at_least, check_choice, check_texts
from wanray.config.estimate import EstimateConfig
from wanray.config.extension import CacheConfig, ExtensionConfig
from wanray.config.faults import DenoisingConfig, EncodingConfig, FaultsConfig, MediaConfig
from wanray.config.serve import ServeConfig
from wanray.config.topology import TopologyConfig
from wanray.errors import ConfigError
from wanray.registry import MODELS
from wanray.schedule import MODES, SOLVERS

PLACEMENTS = ("auto", "split", "swap", "both")


VIDEO_CODECS = {"mp4": ("h264", "h265", "av1"), "webm": ("vp9", "av1"), "gif": (), "png": (), "webp": ()}
"""Per format of `output.video.format` the codecs to choose from, its default first."""
VIDEO_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
"""From fast to small."""
_LARGEST_CRF = {"h264": 51, "h265": 51, "av1": 63, "vp9": 63}


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """How frames become files. Not part of the key: it does not change what was rendered."""

    format: str = "mp4"
    """`mp4`, `webm`, `gif`, `webp` (animated) or `png` (a folder of lossless frames)."""
    codec: str | None = None
    """`h264`, `h265` or `av1` in mp4, `vp9` or `av1` in webm; None takes the first of these."""
    crf: int | None = None
    """Constant rate factor: 0 is best, larger is smaller; None looks lossless (h264: 17)."""
    bitrate_kbps: int | None = None
    """Average kilobits per second, instead of a constant quality."""
    preset: str = "medium"
    """Speed in x264's words: ultrafast, veryfast, fast, medium, slow, veryslow; for mp4 and webm."""
    audio: bool = False
    """Keep the audio of a source video; for mp4 and webm, where the clip plays at the source's speed."""
    image_format: str = "png"
    """What a text-to-image request becomes: `png` or `webp`, both lossless."""

    def __post_init__(self) -> None:
        check_choice("output.video.format", self.format, tuple(VIDEO_CODECS))
        check_choice("output.video.preset", self.preset, VIDEO_PRESETS)
        check_choice("output.video.image_format", self.image_format, ("png", "webp"))
        check_at_least("output.video.bitrate_kbps", self.bitrate_kbps, 1)
        self._check_format()
        largest = _LARGEST_CRF.get(self.codec_name, 0)
        if self.crf is not None and not 0 <= self.crf <= largest:
            raise ConfigError(f"output.video.crf must be 0 to {largest}, got {self.crf} ({self.codec_name})")
        if self.crf is not None and self.bitrate_kbps is not None:
            raise ConfigError(
                f"output.video.crf {self.crf} excludes output.video.bitrate_kbps: keep one of them"
            )

    def _check_format(self) -> None:
        """Raise ConfigError for what the format cannot hold."""
        codecs = VIDEO_CODECS[self.format]
        if codecs and self.codec is not None:
            check_choice(f"output.video.codec of {self.format}", self.codec, codecs)
        for name in () if codecs else ("codec", "crf", "bitrate_kbps", "audio"):
            value = getattr(self, name)
            if value is not None and value is not False:
                raise ConfigError(
                    f"output.video.{name} must be left out with format {self.format}, got {value!r}: "
                    "it needs mp4 or webm"
                )

    @property
    def codec_name(self) -> str:
        """The codec that is meant: the format's default where None is given; gif, png, webp are their own."""
        return self.codec or (VIDEO_CODECS[self.format] or (self.format,))[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """Where clips, failures and run files go."""

    url: str = MISSING
    """A folder, or any fsspec URL such as s3://bucket/folder."""
    save_latents: bool = False
    """Also write `latents.safetensors`: float32 [channels, frames, height, width] as the VAE gets them."""
    video: VideoConfig = field(default_factory=VideoConfig)

    def __post_init__(self) -> None:
        if not self.url.strip():
            raise ConfigError(
                "output.url must not be blank: name a folder or a URL such as s3://bucket/folder"
            )
        if re.match(r"[a-z0-9]{2,}:(?!//)", self.url):
            raise ConfigError(f"output.url must have :// after its scheme, got {self.url!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which weights to render with."""

    path: str = MISSING
    """Folder of a checkpoint in the official or in Diffusers layout, or a repository such as
    `Wan-AI/Wan2.1-T2V-1.3B`, `hf://owner/name[@revision]` or `modelscope://owner/name[@revision]`."""
    name: str | None = None
    """A name of the registry; None reads it off the checkpoint."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_choice("model.name", self.name, tuple(sorted(MODELS)))


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericsConfig:
    """What decides pixels besides the request. Part of every key."""

    mode: str = "official"
    """`official` follows Wan's own code; `diffusers` reproduces diffusers' pipelines bit for bit."""
    dtype: str = "bfloat16"
    """Of transformer and text encoder: `bfloat16` or `float32`. The VAE always computes in float32."""
    noise: str = "cpu"
    """Where the first noise is drawn: `cpu` is the same everywhere, `cuda` is the official stream."""
    vae_tiling: bool = False
    """Decode large pictures in overlapping tiles of 256 pixels: less memory, slightly other pixels."""
    text_int8: bool = False
    """Text encoder with weights of 8 bits: 0.6 of the memory of bfloat16, and slightly other pixels."""
    attention: str = "exact"
    """`sage` quantises attention to 8 bits: faster, and slightly other pixels."""

    def __post_init__(self) -> None:
        check_choice("numerics.mode", self.mode, MODES)
        check_choice("numerics.dtype", self.dtype, ("bfloat16", "float32"))
        check_choice("numerics.noise", self.noise, ("cpu", "cuda"))
        check_choice("numerics.attention", self.attention, ("exact", "sage"))


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultsConfig:
    """Values for what a manifest row leaves out; names and rules are those of the manifest's columns."""

    prompt: Any = None
    """Of rows without one. Where no manifest is named, what to render: a text, or a list of them."""
    negative_prompt: str | None = None
    """What to avoid; None: the model's official one."""
    task: str | None = None
    """One of the model's; None: each row's inputs tell."""
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels, instead of width and height."""
    width: int | None = None
    """Pixels, with height."""
    height: int | None = None
    """Pixels, with width."""
    num_frames: int | None = None
    """4n+1, such as 81; of a source video at most so many."""
    fps: float | None = None
    """Frames per second of the clip; a source video's own speed is kept where nobody says."""
    seed: int | None = None
    """Of the first noise; None: derived from the rest of each request, so that it is stable."""
    seeds: list[int] | None = None
    """Render each row once per seed."""
    steps: int | None = None
    """Of denoising."""
    shift: float | None = None
    """Flow shift: higher spends more of the steps on high noise."""
    guidance: Any = None
    """A number, or {high, low} for a model with two experts."""
    solver: str | None = None
    """`unipc` or `dpm++`."""
    max_area: int | None = None
    """Pixels; image-driven tasks take their aspect from the image, under this area."""
    context_scale: float | None = None
    """VACE: strength of the control branch; 1 where nobody says."""
    video_sampling: str | None = None
    """VACE: `even` spreads the frames over the whole source video, as the official code does; `cut` takes
    them from its start at the clip's fps."""
    priority: int | None = None
    """Higher is rendered first; 0 where nobody says."""
    tags: dict[str, Any] | None = None
    """Carried to the output with every clip."""

    def __post_init__(self) -> None:
        check_texts("defaults.prompt", self.prompt)
        if self.solver is not None:
            check_choice("defaults.solver", self.solver, SOLVERS)
        check_at_least("defaults.steps", self.steps, 1)
        check_at_least("defaults.num_frames", self.num_frames, 1)
        check_at_least("defaults.width", self.width, 1)
        check_at_least("defaults.height", self.height, 1)
        check_at_least("defaults.seed", self.seed, 0)
        if self.size is not None and (self.width is not None or self.height is not None):
            raise ConfigError(
                f"defaults.size {self.size!r} excludes defaults.width and defaults.height: keep one way"
            )
        if self.seed is not None and self.seeds is not None:
            raise ConfigError(f"defaults.seed {self.seed} excludes defaults.seeds: keep one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """The workers of one stage."""

    workers: int = 1
    """Actors, for extend, encode and decode."""
    gangs: int = 1
    """Gangs, for the denoise pools."""
    concurrency: int | None = None
    """Requests that a worker of extend or encode has in work at once; None: 2 for encode, 8 to an endpoint, 1
    for a local language model, which answers several in one batch, with other last bits than one by one."""
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    resources: dict[str, float] | None = None
    """Ray resources of one worker or rank, such as {GPU: 1} or {CPU: 4}; None: where the cluster has GPUs,
    one for a denoise rank, the decoder, and the encoder of a model that takes images; else one CPU. Several
    GPUs of an encode worker divide the layers of the text encoder, those of a decode worker the VAE's."""
    labels: dict[str, str] = field(default_factory=dict)
    """Ray node labels that the pool's nodes must carry: a value, `!value`, `in(a, b)` or `!in(a, b)`."""

    def check(self, key: str) -> None:
        """Raise ConfigError if a value is out of range; `key` is where this stands."""
        check_at_least(f"{key}.workers", self.workers, 1)
        check_at_least(f"{key}.gangs", self.gangs, 1)
        check_at_least(f"{key}.concurrency", self.concurrency, 1)
        for name, amount in (self.resources or {}).items():
            check_at_least(f"{key}.resources.{name}", amount, 0)
            if name == "GPU" and amount > 1 and amount != int(amount):
                raise ConfigError(f"{key}.resources.GPU must be a whole number or below 1, got {amount}")
        if self.resources is not None and not any(self.resources.values()):
            raise ConfigError(
                f"{key}.resources must ask for something, such as {{CPU: 1}}, got {self.resources}"
            )
        self.topology.check(f"{key}.topology")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolsConfig:
    """One entry per pool. `denoise` serves models with one expert, and placements `both` and `swap`."""

    extend: PoolConfig = field(default_factory=PoolConfig)
    encode: PoolConfig = field(default_factory=PoolConfig)
    denoise: PoolConfig = field(default_factory=PoolConfig)
    denoise_high: PoolConfig = field(default_factory=PoolConfig)
    denoise_low: PoolConfig = field(default_factory=PoolConfig)
    decode: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        for pool in fields(self):
            getattr(self, pool.name).check(f"pools.{pool.name}")
        for name in ("denoise", "denoise_high", "denoise_low", "decode"):
            if getattr(self, name).concurrency not in (None, 1):
                raise ConfigError(
                    f"pools.{name}.concurrency must be left out, got {getattr(self, name).concurrency}: "
                    "a gang renders one request at a time"
                )
        for name in ("extend", "denoise", "denoise_high", "denoise_low"):
            if (num_gpus := (getattr(self, name).resources or {}).get("GPU", 0)) > 1:
                remedy = "a worker uses one" if name == "extend" else "a gang has one per rank (topology)"
                raise ConfigError(f"pools.{name}.resources.GPU must be at most 1, got {num_gpus:g}: {remedy}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RayConfig:
    """The cluster, and how long its start may take."""

    address: str | None = None
    """Of a running cluster; None: RAY_ADDRESS inside a Ray job, else a cluster on this machine."""
    start_timeout_s: float = 1800.0
    """Time for all gangs to be placed and to load their weights."""
    rows_ahead: int | None = None
    """Requests that wait in front of a pool, besides those that the pool before has in work; None: two per
    worker and four more. Each holds its texts and images in memory."""

    def __post_init__(self) -> None:
        check_at_least("ray.start_timeout_s", self.start_timeout_s, 1)
        check_at_least("ray.rows_ahead", self.rows_ahead, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """One rendering job."""

    manifest: str | None = None
    """Parquet, JSONL or CSV: a file, a folder, a glob or an fsspec URL. None: there are
    only the prompts of `defaults`."""
    output: OutputConfig = field(default_factory=OutputConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: str = "ray"
    """`ray` streams through a cluster; `local` runs the same stages in this process."""
    run: str | None = None
    """Name of the run's folder below `runs/`; None takes the time."""
    on_invalid: str = "record"
    """Rows that break a rule: `record` them as failures and render the rest, or `fail` at once."""
    numerics: NumericsConfig = field(default_factory=NumericsConfig)
    defaults: DefaultsConfig = field(default_factory=DefaultsConfig)
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """Column -> values: every row is rendered once per combination."""
    extension: ExtensionConfig = field(default_factory=ExtensionConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    placement: str = "auto"
    """Of two experts: `split` (a pool each), `both` (in every gang), `swap` (a gang does the steps of both
    and holds one at a time while the other stays in the host's memory) or `auto`."""
    claim: bool = False
    """Several runs, on several clusters, share one manifest and output: each takes what no other has."""
    pools: PoolsConfig = field(default_factory=PoolsConfig)
    encode: EncodingConfig = field(default_factory=EncodingConfig)
    denoise: DenoisingConfig = field(default_factory=DenoisingConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)

    @property
    def prompts(self) -> list[str]:
        """What is rendered where no manifest is named."""
        prompt = self.defaults.prompt
        return prompt if isinstance(prompt, list) else [prompt]

    @property
    def attention(self) -> str:
        """What gangs are asked to compute attention with: `auto`, a name of `ATTENTIONS`, or `sage`."""
        return "sage" if self.numerics.attention == "sage" else self.denoise.attention

    def __post_init__(self) -> None:
        if self.run is not None and not re.fullmatch(r"\w[\w.-]*", self.run):
            raise ConfigError(f"run must be a name of letters, digits and . _ -, got {self.run!r}")
        if self.manifest is not None and not self.manifest.strip():
            raise ConfigError("manifest must not be blank: name a file, a folder or a URL")
        if self.manifest is not None and isinstance(self.defaults.prompt, list):
            raise ConfigError(
                f"defaults.prompt is a list, and the rows of manifest {self.manifest} can be given one text: "
                "say manifest=null to render the list"
            )
        check_choice("engine", self.engine, ("ray", "local"))
        check_choice("on_invalid", self.on_invalid, ("record", "fail"))
        check_choice("placement", self.placement, PLACEMENTS)
