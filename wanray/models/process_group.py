"""The process group of a gang. Ranks meet at a store on a port that the system picks: no port to race for.

What ranks agree on goes over gloo beside NCCL, so that it never waits for what a GPU has in its queue.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

START_TIMEOUT = timedelta(minutes=10)
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


def open_store(host: str, world_size: int) -> dist.TCPStore:
    """The gang's store on rank 0; `store.port` is where the others find it."""
    return dist.TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False, timeout=START_TIMEOUT)


def find_store(rendezvous: str, world_size: int) -> dist.Store:
    """The gang's store on the other ranks; of a gang of one, who meets nobody, one of its own."""
    if world_size == 1:
        return dist.HashStore()
    host, _, port = rendezvous.rpartition(":")
    return dist.TCPStore(host, int(port), world_size, is_master=False, timeout=START_TIMEOUT)


class Agreement:
    """The process group of this process, and what its ranks tell each other about a request."""

    def __init__(self, store: dist.Store, rank: int, world_size: int, device: str) -> None:
        """Enter: NCCL between GPUs, gloo between CPUs; returns when all ranks have."""
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=dist.PrefixStore("gang", store),
            rank=rank,
            world_size=world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        self._group: Any = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def from_first(self, number: int) -> int:
        """The number that rank 0 holds."""
        box = torch.tensor([number])
        dist.broadcast(box, 0, group=self._group)
        return int(box.item())

    def check(self, what: str, digest: bytes) -> None:
        """Fail unless all ranks hold the same; ranks on different inputs would mix two videos."""
        mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        digests = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(digests, mine, group=self._group)
        assert all(torch.equal(mine, other) for other in digests), f"ranks disagree on {what}"


def leave() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
