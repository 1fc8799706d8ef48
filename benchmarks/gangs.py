"""(h) Gangs of CPU ranks: their start, what a step costs, hand-off of states, memory of loading."""

import logging
import multiprocessing
import tempfile
import time
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import load_memory
from wanray.checkpoint import Component
from wanray.config import TopologyConfig
from wanray.stage import Worker

STEPS = 100
HANDOFFS = 7
SWAPS = 3
LAYERS = 24
"""Of the transformer that is loaded: 2.1 GB in bfloat16."""
GANGS = {
    "ulysses 2": TopologyConfig(ulysses=2),
    "cfg 2": TopologyConfig(cfg=2),
    "fsdp 2": TopologyConfig(ulysses=2, fsdp=2),
}
LATENTS = {"480p81": (1, 16, 21, 60, 104), "720p81": (1, 16, 21, 90, 160)}
Row = dict[str, float | str]


def run() -> list[Row]:
    """All of it; each gang is one of fresh processes."""
    with tempfile.TemporaryDirectory() as name:
        tiny, large = Path(name) / "tiny", Path(name) / "large"
        large.mkdir()
        component = in_process(prepare, str(tiny), str(large))
        rows = in_process(step_alone, str(tiny))
        for gang, topology in GANGS.items():
            rows += in_gang(gang, topology, step_in_gang, str(tiny))
        for gang in ("ulysses 2", "fsdp 2"):
            rows += in_gang(gang, GANGS[gang], load_in_gang, component)
    return rows + in_process(hand_off)


def row(what: str, gang: str, value: float, unit: str) -> Row:
    """One figure."""
    return {"what": what, "gang": gang, "value": value, "unit": unit}


def in_process(body: Any, *arguments: Any) -> Any:
    """What `body` returns, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(body, arguments)


def in_gang(gang: str, topology: TopologyConfig, body: Any, *arguments: Any) -> list[Row]:
    """What `body(ranks, gang, *arguments)` returns on rank 0, and how long the gang took to start."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(topology.world_size)]
    start = time.monotonic()
    ranks = [
        context.Process(target=be_rank, args=(number, topology, gang, pipe, body, arguments))
        for number, (_, pipe) in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    rendezvous = pipes[0][0].recv()
    for mine, _ in pipes[1:]:
        mine.send(rendezvous)
    together_s = pipes[0][0].recv() - start
    rows = pipes[0][0].recv()
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0, f"a rank of {gang} ended with {rank.exitcode}"
    return [row("start: processes, imports, groups", gang, together_s, "s"), *rows]


def be_rank(
    rank: int, topology: TopologyConfig, gang: str, pipe: Connection, body: Any, arguments: tuple[Any, ...]
) -> None:
    """Runs in each rank."""
    import torch

    from wanray.models import process_group
    from wanray.models.ranks import make_ranks

    torch.set_num_threads(1)
    store = process_group.open_store("127.0.0.1", topology.world_size) if rank == 0 else None
    if store is not None:
        pipe.send(f"127.0.0.1:{store.port}")
    rendezvous = "" if rank == 0 else pipe.recv()
    worker = Worker(rank=rank, world_size=topology.world_size, rendezvous=rendezvous)
    ranks = make_ranks(worker, topology, "auto", "official", torch.float32, store)
    ranks.from_first(0)
    if rank == 0:
        pipe.send(time.monotonic())
    rows = body(ranks, gang, *arguments)
    if rank == 0:
        pipe.send(rows)
    ranks.leave()


def prepare(tiny: str, large: str) -> Component:
    """Write the checkpoints; returns the transformer of the large one."""
    import torch
    from safetensors.torch import save_file

    from wanray.models.tiny import write_tiny

    write_tiny("t2v-1.3b", tiny)
    load_memory.LAYERS = LAYERS
    file = Path(large) / "diffusion_pytorch_model.safetensors"
    shapes = load_memory.transformer_shapes()
    save_file({name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}, file)
    return Component(role="transformer", layout="official", path=str(file), files=(str(file),))


def step_alone(tiny: str) -> list[Row]:
    """A bare loop of forwards and solver steps, and the same through what gangs use."""
    import torch

    from wanray.models.ranks import Alone

    torch.set_num_threads(1)
    return step_in_gang(Alone(Worker(), "auto"), "one process", tiny)


def step_in_gang(ranks: Any, gang: str, tiny: str) -> list[Row]:
    """Milliseconds of a guided step of the denoise loop with the tiny model."""
    import torch

    from wanray.checkpoint import open_checkpoint
    from wanray.models.denoise import TextCondition, advance
    from wanray.models.solver import make_solver
    from wanray.models.state import DenoiseState
    from wanray.models.steering import Steering

    transformer = ranks.load(open_checkpoint(tiny).transformers["single"], torch.float32, official=True)
    times_s: list[float] = []

    def told(state: DenoiseState) -> bool:
        times_s.append(time.monotonic())
        return bool(ranks.from_first(0))

    torch.manual_seed(0)
    state = DenoiseState(torch.randn(1, 16, 3, 8, 8))
    text = TextCondition(torch.randn(1, 512, 32), torch.randn(1, 512, 32))
    solver = make_solver("unipc", STEPS, 5.0, "official", {}, "cpu")
    advance(transformer, state, solver, text, Steering(), 4.0, STEPS, "official", told, ranks.pair)
    steps_s = [after - before for before, after in pairwise(times_s)]
    agree_s = timed(lambda: ranks.from_first(0), STEPS)
    return [
        row("a guided step of the tiny model", gang, 1000 * median(steps_s), "ms"),
        row("of which: ranks agree whether to stop", gang, 1000 * agree_s, "ms"),
    ]


def timed(call: Any, times: int) -> float:
    """Median of its seconds, after a first call."""
    call()
    seconds = []
    for _ in range(times):
        start = time.monotonic()
        call()
        seconds.append(time.monotonic() - start)
    return median(seconds)


def load_in_gang(ranks: Any, gang: str, component: Component) -> list[Row]:
    """Private memory of a rank while it loads, as a share of the file; then the speed of a swap."""
    import torch

    from wanray.models.load import refill

    before = load_memory.memory()
    size = sum(Path(file).stat().st_size for file in component.files)
    start = time.monotonic()
    with load_memory.Peak() as peak:
        network = ranks.load(component, torch.bfloat16, official=False)
    loaded_s = time.monotonic() - start
    swap_s = min(timed(lambda: refill(network, component, lambda: None), 1) for _ in range(SWAPS))
    parameters = sum(
        part.numel() * part.itemsize
        for part in (getattr(value, "_local_tensor", value) for value in network.parameters())
    )
    private = peak.highest["RssAnon"] - before["RssAnon"]
    return [
        row("loading 2 GB: a rank holds, of the file", gang, parameters / size, "x"),
        row("loading 2 GB: private memory, of the file", gang, private / size, "x"),
        row("loading 2 GB: time", gang, loaded_s, "s"),
        row("swapping 2 GB in place, from the page cache", gang, size / 1e9 / swap_s, "GB/s"),
    ]


def hand_off() -> list[Row]:
    """States through the object store: packed, put, got by another process, unpacked."""
    import ray
    import torch

    from wanray.models.state import DenoiseState
    from wanray.stages.payload import Payload

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    taker: Any = ray.remote(Taker)  # whose types know neither classes nor methods
    taker = taker.remote()
    ray.get(taker.take.remote([ray.put(b"")]))
    rows = []
    for name, shape in LATENTS.items():
        history = {name: torch.randn(shape) for name in ("last_sample", "model_outputs.0", "model_outputs.1")}
        for what, tensors in (("latents", {}), ("latents and history", history)):
            state = DenoiseState(torch.randn(shape), 20, tensors)
            seconds = timed(
                lambda state=state: ray.get(taker.take.remote([ray.put(Payload(state=state).pack())])),
                HANDOFFS,
            )
            megabytes = sum(item.nbytes for item in (state.latents_BCTHW, *tensors.values())) / 1e6
            rows.append(row(f"hand-off of {what}, {megabytes:.0f} MB", name, 1000 * seconds, "ms"))
    ray.shutdown()
    return rows


class Taker:
    """Takes states over."""

    def take(self, box: list[Any]) -> int:
        """The step of a state, which is unpacked."""
        import ray

        from wanray.stages.payload import Payload

        packed: Any = ray.get(box[0])
        state = Payload.unpack(packed).state if packed else None
        return state.step if state else 0
