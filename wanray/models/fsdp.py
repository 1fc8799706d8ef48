"""Weights divided among the ranks of a gang (FSDP2): each holds some rows, and borrows the rest for a block.

Parameters that stay float32 in a bfloat16 network are small and stay whole on each rank, since FSDP gathers
one dtype at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def divide(network: nn.Module, blocks: Sequence[nn.Module], device: str) -> None:
    """Divide the parameters of `network`, which have no values yet, among all ranks of the process group.

    blocks: parts of it that are gathered whole, one after the other.
    """
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    dtypes = {parameter.dtype for parameter in network.parameters()}
    whole = {item for item in network.parameters() if len(dtypes) > 1 and item.dtype == torch.float32}
    for block in blocks:
        ignored = whole & set(block.parameters())
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
    fully_shard(network, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def own_part(tensor: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """What this rank holds of `tensor`, which belongs at `place`: its rows, or all of it."""
    if not isinstance(place, DTensor):
        return tensor
    size, rank = place.device_mesh.size(), place.device_mesh.get_local_rank()
    num_rows = -(-tensor.shape[0] // size)  # as torch.chunk divides: the last ranks may have fewer, or none
    return tensor[rank * num_rows : (rank + 1) * num_rows]


def own_memory(place: torch.Tensor) -> torch.Tensor:
    """Where this rank holds its part of the parameter `place`; writing there changes the parameter."""
    return place.to_local() if isinstance(place, DTensor) else place


def as_placed(part: torch.Tensor, place: torch.Tensor) -> Any:
    """`part`, as `own_part` returns it, as a value for `place`."""
    if not isinstance(place, DTensor):
        return part
    return DTensor.from_local(
        part, place.device_mesh, place.placements, run_check=False, shape=place.shape, stride=place.stride()
    )
