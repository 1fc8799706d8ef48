"""What a plan's estimate of time and cost rests on."""

from dataclasses import dataclass

from wanray.config.checks import check_at_least, check_choice
from wanray.config.gpus import GPUS
from wanray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateConfig:
    """What the plan's estimate rests on: what was measured, else what is assumed of GPUs and CPUs."""

    profile: str | None = None
    """Measured times: a `profile.json`, a run's folder, or the `output.url` of a render, which means what
    `wanray profile` kept there, else its newest run; None: those of this output, if there are any; `none`:
    only the FLOP model."""
    start_s: float | None = None
    """Seconds until all workers have loaded their weights; None: as measured, else 0."""
    price_per_gpu_hour: float | None = None
    """What one GPU costs for an hour; None: the plan tells no cost."""
    currency: str = "USD"
    """Of that price."""

    gpu: str = "H100"
    """Kind of GPU: A10, A100, A100-40, B200, H100, H200, L4, L40S, RTX-4090 or RTX-5090, for the next two."""
    gpu_gib: float | None = None
    """Memory of one GPU, as `wanray doctor` tells; None: that of the kind."""
    peak_tflops: float | None = None
    """Dense bfloat16 peak of one GPU; None: that of the kind (H100: 790, which it sustains)."""
    host_gb_per_s: float = 10.0
    """At which a GPU reads weights from the host's memory, for placement `swap`."""
    mfu: float = 0.5
    """Share of the peak that denoising reaches."""
    cpu_tflops: float = 0.05
    """What one CPU core sustains while it encodes text (0.05: measured in float32 with AVX2; bfloat16 without
    hardware for it is six times slower, with AMX several times faster)."""
    encode_s: float | None = None
    """Seconds in which a worker encodes a new prompt with its media; None: as measured, else a FLOP model, of
    text alone."""

    def __post_init__(self) -> None:
        check_choice("estimate.gpu", self.gpu, tuple(GPUS))
        for name in ("gpu_gib", "peak_tflops", "cpu_tflops", "host_gb_per_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"estimate.{name} must be above 0, got {value}")
        for name in ("encode_s", "start_s", "price_per_gpu_hour"):
            check_at_least(f"estimate.{name}", getattr(self, name), 0)
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"estimate.mfu must be above 0 and at most 1, got {self.mfu}")

    @property
    def gpu_tflops(self) -> float:
        """Peak of one GPU."""
        return GPUS[self.gpu].tflops if self.peak_tflops is None else self.peak_tflops

    @property
    def gpu_bytes(self) -> int:
        """Memory of one GPU."""
        return round((GPUS[self.gpu].gib if self.gpu_gib is None else self.gpu_gib) * 2**30)
