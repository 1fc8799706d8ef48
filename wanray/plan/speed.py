"""On what a pool computes, and how fast that is by `estimate`: nothing is asked of a cluster."""

from wanray.config import PoolConfig, RenderConfig

TF32_SHARE = 0.5
"""Of the bfloat16 peak, which the VAE's float32 convolutions reach on a GPU."""


def pool_config(config: RenderConfig, name: str) -> PoolConfig:
    """The config of the pool called `name`."""
    return getattr(config.pools, name)


def gpus_per_worker(pool: PoolConfig, wants_gpu: bool) -> float:
    """GPUs of one actor or rank, on a cluster that has any."""
    return float(wants_gpu) if pool.resources is None else pool.resources.get("GPU", 0.0)


def pool_tflops(config: RenderConfig, name: str, on_gpu: bool) -> float:
    """TFLOP/s of one worker of the pool."""
    if on_gpu:
        return config.estimate.peak_tflops * config.estimate.mfu
    return config.estimate.cpu_tflops * _num_cores(pool_config(config, name))


def speed_words(config: RenderConfig, name: str, on_gpu: bool) -> str:
    """The same for people."""
    if on_gpu:
        return f"{config.estimate.peak_tflops:g} TFLOP/s x {config.estimate.mfu:g}"
    num_cores = _num_cores(pool_config(config, name))
    return f"{config.estimate.cpu_tflops:g} TFLOP/s x {num_cores:g} core{'s' if num_cores > 1 else ''}"


def _num_cores(pool: PoolConfig) -> float:
    return max(1.0, (pool.resources or {}).get("CPU", 1.0))
