"""The process group of a gang. Ranks meet at a store on a port that the system picks: no port to race for."""

from datetime import timedelta

import torch
import torch.distributed as dist

START_TIMEOUT = timedelta(minutes=10)
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


def open_store(host: str, world_size: int) -> dist.TCPStore:
    """The gang's store on rank 0; `store.port` is where the others find it."""
    return dist.TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False, timeout=START_TIMEOUT)


def join(store: dist.TCPStore | None, rendezvous: str, rank: int, world_size: int, device: str) -> None:
    """Enter the gang's process group: NCCL between GPUs, gloo between CPUs."""
    if store is None:
        host, _, port = rendezvous.rpartition(":")
        store = dist.TCPStore(host, int(port), world_size, is_master=False, timeout=START_TIMEOUT)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=dist.PrefixStore("gang", store),
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )


def check_agreement(key: str, device: str) -> None:
    """Fail unless all ranks hold the same request; ranks on different requests would mix two videos."""
    mine = torch.tensor(list(bytes.fromhex(key)), dtype=torch.uint8, device=device)
    all_keys = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(all_keys, mine)
    assert all(torch.equal(mine, other) for other in all_keys), f"ranks disagree on the request: {key}"


def from_first(number: int, device: str) -> int:
    """The number that rank 0 holds."""
    box = torch.tensor([number], device=device)
    dist.broadcast(box, 0)
    return int(box.item())


def leave() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
