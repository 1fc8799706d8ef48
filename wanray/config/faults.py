"""Keys of single stages, of what a run does when something dies, and of what it refuses to touch."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from wanray.config.checks import check_at_least, check_choice
from wanray.errors import ConfigError

SCHEMES = ["file", "s3", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "hf"]
"""Of media that a manifest may name when nobody says otherwise."""
ATTENTIONS = ("flash_4", "flash_3", "cudnn", "flash_2", "sdpa")
"""Exact attention kernels, the fastest first: of FlashAttention 4, 3 and 2, of cuDNN, of torch itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingConfig:
    """Of the encode workers, what changes no pixels but for the last bits."""

    t5: str = "auto"
    """Where the text encoder computes: `cpu`, `gpu`, or `auto`: where the worker's image and video encoders
    do, which take a GPU if there is any, and on a CPU for a model of text alone."""

    def __post_init__(self) -> None:
        if self.t5 == "fsdp":
            raise ConfigError(
                "encode.t5 must be one of auto, cpu, gpu, got 'fsdp': workers with several GPUs divide the "
                "text encoder anyway (pools.encode.resources={GPU: 2})"
            )
        check_choice("encode.t5", self.t5, ("auto", "cpu", "gpu"))


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingConfig:
    """Of the denoise loop, what does not change pixels."""

    checkpoint_every_steps: int = 0
    """Store the state of a clip in work every so many steps and between two experts; 0: only when a run is
    told to stop, and between two experts that are swapped. A clip whose gang dies goes on from the newest."""
    attention: str = "auto"
    """Kernel on GPUs: `flash_4`, `flash_3`, `cudnn`, `flash_2` or `sdpa`, which are all exact; `auto` takes
    the first of these that works on all GPUs of a gang."""
    gpus: int | None = None
    """GPUs for all denoise gangs together; placement and gangs are then chosen, as renders
    most videos per hour; None: they are as `placement` and `pools` say."""
    swap_after: int = 8
    """With placement `swap`: requests that a gang takes through one expert before it swaps, if so
    many wait."""
    offload: str = "none"
    """`sequential`: the transformer stays in the host's memory, and each of its blocks visits the GPU for its
    own forward. For GPUs too small for anything else: all weights travel twice in a guided step."""
    check_inputs: bool = False
    """Compare digests of what the ranks of a gang got, at the start of each request: for debugging."""

    def __post_init__(self) -> None:
        check_choice("denoise.attention", self.attention, ("auto", *ATTENTIONS))
        if self.offload == "expert":
            raise ConfigError(
                "denoise.offload must be one of none, sequential, got 'expert': what is meant is "
                "placement=swap, with denoise.swap_after=1 to swap for every clip"
            )
        check_choice("denoise.offload", self.offload, ("none", "sequential"))
        check_at_least("denoise.gpus", self.gpus, 1)
        check_at_least("denoise.swap_after", self.swap_after, 1)
        check_at_least("denoise.checkpoint_every_steps", self.checkpoint_every_steps, 0)

    @property
    def offloads(self) -> bool:
        """Whether transformers stay in the host's memory."""
        return self.offload == "sequential"


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultsConfig:
    """How patient to be with requests, workers and stores."""

    max_attempts: int = 3
    """Times that a stage tries a request when workers die under it or a store fails, before it is put off."""
    max_rounds: int = 2
    """Times that requests which were put off are rendered again at the end of the run."""
    stop_after: int = 20
    """End the run when so many requests in a row failed for reasons of infrastructure; 0: never."""
    stall_s: float = 1800.0
    """A worker that reports no step for so long hangs and is killed, until steps of its shape were timed."""
    stall_factor: float = 10.0
    """Afterwards: so many times the median step of its shape, but at least a minute."""
    max_builds: int = 5
    """A gang that dies under so many different requests without finishing one is given up."""
    drain_s: float = 120.0
    """After SIGTERM: time to store the state of what is in work and to commit what is denoised."""
    claim_expires_s: float = 120.0
    """With `claim`: a run that gave no sign of life for so long has lost its claims."""
    tile_when_out_of_memory: bool = False
    """A clip whose decoding runs out of memory is decoded in tiles at the next try. Its pixels differ
    slightly from what its key promises; `meta.json` says so."""

    def __post_init__(self) -> None:
        check_at_least("faults.max_attempts", self.max_attempts, 1)
        check_at_least("faults.max_rounds", self.max_rounds, 0)
        check_at_least("faults.stop_after", self.stop_after, 0)
        check_at_least("faults.stall_s", self.stall_s, 1)
        check_at_least("faults.stall_factor", self.stall_factor, 2)
        check_at_least("faults.max_builds", self.max_builds, 1)
        check_at_least("faults.drain_s", self.drain_s, 0)
        check_at_least("faults.claim_expires_s", self.claim_expires_s, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaConfig:
    """Which media a manifest may name. Manifests are written by others than those who run them."""

    allow_schemes: list[str] = field(default_factory=lambda: [*SCHEMES])
    """Schemes of URIs; `file` stands for local paths."""
    allow_roots: list[str] | None = None
    """Local folders below which files may lie; None: anywhere that this user may read; []: nowhere."""

    def __post_init__(self) -> None:
        for scheme in self.allow_schemes:
            if not scheme or "/" in scheme or ":" in scheme:
                raise ConfigError(f"media.allow_schemes must be names such as s3 or https, got {scheme!r}")
        for root in self.allow_roots or []:
            if urlsplit(root).scheme or not root.strip():
                raise ConfigError(f"media.allow_roots must be local folders, got {root!r}")
