"""Memory that denoising takes of a GPU. An estimate, until somebody has measured it."""

from wanray.config import RenderConfig, TopologyConfig
from wanray.plan.work import Work

ACTIVATION_BYTES = 80
"""Per token and channel: residual stream and norms in float32, queries, keys, values, what is exchanged of
them and the widened half of a block in bfloat16 (about 40), and as much again that the allocator keeps."""
FIXED_BYTES = 3 * 2**30
"""The CUDA context, NCCL's buffers and kernels' workspaces."""
USABLE = 0.95
"""Of a GPU's memory: the rest is lost between allocations."""
GATHERED_BLOCKS = 2
"""Of weights that are divided, those of so many blocks are whole at a time: one computes, the next comes."""


def rank_bytes(topology: TopologyConfig, num_experts: int, work: Work, offloads: bool) -> float:
    """What a rank takes that holds so many experts, for the largest request of `work`.

    offloads: it holds no more than a block of one.
    """
    weights = num_experts * work.expert_bytes / topology.fsdp
    if offloads:
        weights = work.expert_bytes / work.dims.num_layers
    if topology.fsdp > 1:
        weights += GATHERED_BLOCKS * work.expert_bytes / work.dims.num_layers
    tokens = max(group.tokens for group in work.groups) / topology.num_parts
    return weights + ACTIVATION_BYTES * work.dims.dim * tokens + FIXED_BYTES


def fits(topology: TopologyConfig, num_experts: int, work: Work, config: RenderConfig) -> bool:
    """Whether a GPU can be such a rank."""
    offloads = config.denoise.offloads
    return rank_bytes(topology, num_experts, work, offloads) <= USABLE * config.estimate.gpu_bytes
