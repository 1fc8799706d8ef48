"""On what a pool computes, and how fast that is by `estimate`: nothing is asked of a cluster."""

from wanray.config import PoolConfig, RenderConfig, TopologyConfig

CFG_SPEEDUP = 1.9
"""Of two ranks that each do one forward of a guided step."""
ULYSSES_COST = 0.027
"""Of a rank's time that each further rank adds: its share of what they exchange."""
RING_COST = 0.05
"""The same of a ring."""
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
        return config.estimate.gpu_tflops * config.estimate.mfu
    return config.estimate.cpu_tflops * _num_cores(pool_config(config, name))


def gang_speedup(topology: TopologyConfig, guided: bool) -> float:
    """How many times as fast as one rank a gang is, as far as published figures tell.

    Ulysses: 1.95, 3.6 and 6.7 on 2, 4 and 8 H100 (the official table); guidance: 1.9 (TensorRT-LLM). Of a
    ring nobody has published a figure for Wan; what it is taken for is a guess.
    """
    of_guidance = CFG_SPEEDUP if topology.cfg > 1 and guided else 1.0
    return of_guidance * _shared(topology.ulysses, ULYSSES_COST) * _shared(topology.ring, RING_COST)


def _shared(num_ranks: int, cost: float) -> float:
    return num_ranks / (1 + cost * (num_ranks - 1))


def speed_words(config: RenderConfig, name: str, on_gpu: bool) -> str:
    """The same for people."""
    if on_gpu:
        return f"{config.estimate.gpu_tflops:g} TFLOP/s x {config.estimate.mfu:g}"
    num_cores = _num_cores(pool_config(config, name))
    return f"{config.estimate.cpu_tflops:g} TFLOP/s x {num_cores:g} core{'s' if num_cores > 1 else ''}"


def _num_cores(pool: PoolConfig) -> float:
    return max(1.0, (pool.resources or {}).get("CPU", 1.0))
