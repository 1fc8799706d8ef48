"""Where engine and stages meet: the Stage protocol, and stages named by import string.

An engine knows only this file; a stage knows nothing of engines. No Ray, no torch.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from wanray.records import Record

Report = Callable[[int, int], bool]
"""`report(step, total)`: called by a stage as it advances within one record.

True asks it to stop: it stores what it needs to go on later and raises Stopped, or ends if that is as quick.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """The place where one stage instance runs."""

    device: str = "cpu"
    """`cpu` or `cuda`; a worker sees its own GPUs only, as number 0 and so on."""
    num_gpus: int = 1
    """Where the device is `cuda`; a rank of a gang has one."""
    num_threads: int = 1
    """Threads for operations on the CPU. Fixed per pool, because sums depend on it."""
    rank: int = 0
    world_size: int = 1
    rendezvous: str = ""
    """`host:port` of the gang's store; empty when the world is one process."""

    @property
    def devices(self) -> tuple[str, ...]:
        """All that may share a network, the first of them also called `device`."""
        if self.device == "cpu" or self.num_gpus == 1:
            return (self.device,)
        return tuple(f"{self.device}:{number}" for number in range(self.num_gpus))


class Stage(Protocol):
    """One step of the data flow. The constructor takes the stage's config dataclass only."""

    def setup(self, worker: Worker) -> None:
        """Load what every record needs: weights, tables, connections."""

    def run(self, record: Record, report: Report) -> Record:
        """Do this stage's work on one record.

        Raises:
            StageError: this record cannot be processed; the stage stays usable.
            Stopped: the report asked for it.
        """
        ...

    def healthy(self) -> bool:
        """Asked after an error that `run` did not mean to raise: can this stage go on with other records?"""
        ...

    def close(self) -> None:
        """Free everything, in bounded time, also after a `setup` that failed."""


class GangStage(Stage, Protocol):
    """A stage whose instances, one per rank, work on one record together.

    Only the report of rank 0 is heard, and only it is asked to stop: the ranks agree and end together.
    """

    def host_rendezvous(self, host: str, world_size: int) -> str:
        """Open the gang's store on rank 0, before any `setup`; returns `host:port`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpec:
    """A stage that is not built yet: what an engine sends to where it shall run."""

    name: str
    """Word for this stage in progress, timings, failures and metrics."""
    target: str
    """Import string of the class, `package.module:Class`."""
    config: Any
    """The only argument of its constructor."""

    def build(self) -> Any:
        """Import the class and construct the stage; heavy imports happen here."""
        return load(self.target)(self.config)


def load(target: str) -> Any:
    """The object that an import string `package.module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
