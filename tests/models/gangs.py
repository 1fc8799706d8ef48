"""Gangs of real processes over gloo, forked by a server that has imported what they need."""

import multiprocessing
import os
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import ContextParallelConfig
from model_runs import denoise_config, make_stages, record_of, silent

from wanray.checkpoint import open_checkpoint
from wanray.config import TopologyConfig
from wanray.errors import Stopped
from wanray.models import xdit
from wanray.models.denoise import load_transformer
from wanray.stage import Worker
from wanray.stages.denoise import Denoise
from wanray.stages.payload import Payload

PATIENCE_S = 100


@dataclass(frozen=True, kw_only=True)
class Work:
    """Records for one gang, made ready by `encoded`."""

    path: Path
    records: list
    experts: tuple = ("single",)
    dtype: str = "float32"
    mode: str = "official"
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    swaps: bool = False
    """One expert at a time is held; all records come once for each."""
    offloads: bool = False
    """Blocks stay on the host."""
    attends_to_pads: bool = False
    """As xDiT does by itself."""


def encoded(path, rows, dtype="float32", mode="official"):
    """Records of manifest rows, up to the denoise stage."""
    records = [record_of(path, row, mode, dtype) for row in rows]
    for stage in make_stages(path, (), mode, dtype):
        stage.setup(Worker())
        records = [stage.run(record, silent) for record in records]
        stage.close()
    return records


def denoised(work):
    """Final latents of each record, as a gang of `work.topology` makes them."""
    return in_gang(work.topology.world_size, denoise, work)


def in_gang(size, body, *arguments):
    """What `body(rank, *arguments)` returns on rank 0 of so many processes."""
    context = fork_server()
    pipes = [context.Pipe() for _ in range(size)]
    ranks = [
        context.Process(target=be_rank, args=(Place(number, size, pipes[number][1]), body, arguments))
        for number in range(size)
    ]
    for rank in ranks:
        rank.start()
    try:
        rendezvous = received(pipes[0][0])
        for mine, _ in pipes[1:]:
            mine.send(rendezvous)
        return received(pipes[0][0])
    finally:
        for rank in ranks:
            rank.join(PATIENCE_S)
            rank.kill()


@cache
def fork_server():
    """One per test process. It finds what it shall import by its environment only."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gangs_preload"])
    with patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parent)):
        forkserver.ensure_running()
    return context


def received(pipe):
    """What comes through; an error that came instead is raised."""
    if not pipe.poll(PATIENCE_S):
        raise TimeoutError("a rank says nothing")
    result = pipe.recv()
    if isinstance(result, Exception):
        raise result
    return result


@dataclass(frozen=True)
class Place:
    """Of one rank."""

    rank: int
    size: int
    pipe: Any

    def enter(self, stage):
        """Set up a denoise stage here, together with the other ranks."""
        rendezvous = stage.host_rendezvous("127.0.0.1", self.size) if self.rank == 0 else self.pipe.recv()
        if self.rank == 0:
            self.pipe.send(rendezvous)
        stage.setup(Worker(rank=self.rank, world_size=self.size, rendezvous=rendezvous))
        return stage


def be_rank(place, body, arguments):
    torch.set_num_threads(1)
    try:
        result = body(place, *arguments)
    except Exception as error:
        place.pipe.send(error)
        raise
    if place.rank == 0:
        place.pipe.send(result)


def denoise(place, work):
    """Body of a rank: render the records of `work`."""
    if work.attends_to_pads:
        xdit._Pad.is_next = lambda self: False
    stage = place.enter(stage_of(work))
    records = work.records
    for _ in work.experts if work.swaps else (work.experts,):
        records = [stage.run(record, silent) for record in records]
    stage.close()
    return [Payload.unpack(record.payload).state.latents_BCTHW.numpy() for record in records]


def stage_of(work):
    checkpoint = open_checkpoint(work.path)
    switches = {"swaps": work.swaps, "offloads": work.offloads}
    return Denoise(denoise_config(checkpoint, work.experts, work.mode, work.dtype, work.topology, **switches))


def forward_twice(place, work, inputs):
    """Body of a rank: velocities of xDiT, and of diffusers' own context parallelism on the same ranks."""
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it
    stage = place.enter(stage_of(work))
    (component,) = stage.config.transformers.values()
    theirs = load_transformer(component, torch.float32, "cpu", official=True)
    theirs.enable_parallelism(config=ContextParallelConfig(ulysses_degree=work.topology.ulysses))
    with torch.inference_mode():
        results = [
            transformer(**inputs, return_dict=False)[0].numpy()
            for transformer in (stage.experts.get(work.experts[0], lambda: None), theirs)
        ]
    stage.close()
    return results


def stop(place, work, step):
    """Body of a rank: the report of rank 0 asks to stop, all do, and then render the record whole."""
    stage = place.enter(stage_of(work))
    reported = []

    def report(done, total):
        reported.append(done)
        return place.rank == 0 and done == step

    stopped = None
    try:
        stage.run(work.records[0], report)
    except Stopped as error:
        stopped = str(error)
    stage.ranks.check("where to stop", bytes([reported[-1]]))
    again = stage.run(work.records[0], silent)
    stage.close()
    return stopped, Payload.unpack(again.payload).state.latents_BCTHW.numpy()
