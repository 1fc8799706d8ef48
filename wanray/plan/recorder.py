"""Collects the times of a run's clips as they are committed, in memory that does not grow with them."""

import random
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wanray.plan.model import Plan, PoolPlan, ShapeGroup
from wanray.plan.profile import Measured, Profile
from wanray.records import RESUMED, Record, Request

SAMPLE_SIZE = 99
"""Times of which a median is taken."""
_Key = tuple[str, int, int, int, int, bool, int, str, float]
"""stage, width, height, frames, steps, guided, ranks, topology, TFLOP: the fields of `Measured`."""


@dataclass(slots=True)
class _Times:
    """Count and sum of all, and a fair sample of a few."""

    count: int = 0
    sum_s: float = 0.0
    sample_s: list[float] = field(default_factory=list)

    def add(self, seconds: float, chance: random.Random) -> None:
        self.count += 1
        self.sum_s += seconds
        if len(self.sample_s) < SAMPLE_SIZE:
            self.sample_s.append(seconds)
        elif (place := chance.randrange(self.count)) < SAMPLE_SIZE:
            self.sample_s[place] = seconds


class Recorder:
    """Of one run; any thread may tell it something."""

    def __init__(self, plan: Plan, stages: Mapping[str, Sequence[str]], requests_per_text: float) -> None:
        """`stages`: pool -> names of its stages."""
        self._plan, self._stages = plan, stages
        self._requests_per_text = requests_per_text
        self._pools = {pool.name: pool for pool in plan.pools}
        self._groups = {_cost_of_group(group): group for group in plan.groups}
        self._times: dict[_Key, _Times] = {}
        self._stage_s: dict[str, float] = {}
        self._num_clips = 0
        self._started_s = time.time()
        self._began_s: float | None = None
        self._ready_s: dict[str, float] = {}
        self._chance = random.Random(0)
        self._lock = threading.Lock()

    def began(self, ts: float) -> None:
        """A request was taken up, at `ts` in Unix seconds."""
        with self._lock:
            self._began_s = ts if self._began_s is None else min(ts, self._began_s)

    def ready(self, pool: str, ts: float) -> None:
        """A worker of `pool` can take requests, since `ts` in Unix seconds."""
        with self._lock:
            self._ready_s.setdefault(pool, ts)

    def add(self, record: Record) -> None:
        """A clip was committed."""
        if record.attempts > 1 or any(note.startswith(RESUMED) for note in record.notes):
            return  # they took less, or more, than their request takes
        with self._lock:
            self._num_clips += 1
            for stage, seconds in record.timings_s.items():
                self._stage_s[stage] = self._stage_s.get(stage, 0.0) + seconds
                key = self._key(stage, record.request)
                self._times.setdefault(key, _Times()).add(seconds, self._chance)

    def profile(self, worker_s: Mapping[str, float]) -> Profile | None:
        """All of it; None before the first clip. `worker_s`: pool -> seconds of a worker per request."""
        with self._lock:
            if not self._num_clips:
                return None
            return Profile(
                run=self._plan.run,
                model=self._plan.model["name"],
                dtype=self._plan.numerics["dtype"],
                num_clips=self._num_clips,
                start_s=round(self._start_s, 3),
                requests_per_text=self._requests_per_text,
                worker_share=self._worker_share(worker_s),
                measured=tuple(_measured(key, times) for key, times in self._times.items()),
            )

    @property
    def _start_s(self) -> float:
        """Until each pool had a worker; an engine that tells of none has them all when it begins."""
        ready_s = max(self._ready_s.values(), default=self._began_s)
        return 0.0 if ready_s is None else max(0.0, ready_s - self._started_s)

    def _key(self, stage: str, request: Request) -> _Key:
        shape = (stage, request.width, request.height, request.num_frames)
        pool = self._pools.get(stage, PoolPlan(name=stage, num_workers=1))
        group = self._groups.get(_cost_of(request))
        if not pool.experts or group is None:
            return (*shape, 0, False, 1, "", 0.0)
        num_steps, tflop = group.steps_of(pool.experts), group.tflop_of(pool.experts)
        return (*shape, num_steps, group.guided, pool.world_size, pool.topology, tflop)

    def _worker_share(self, worker_s: Mapping[str, float]) -> dict[str, float]:
        in_stages = {
            pool: sum(self._stage_s.get(stage, 0.0) for stage in stages) / self._num_clips
            for pool, stages in self._stages.items()
        }
        return {
            pool: round(seconds / in_stages[pool], 4)
            for pool, seconds in worker_s.items()
            if in_stages.get(pool)
        }


def _cost_of(request: Request) -> tuple[object, ...]:
    """What tells groups apart: as in `wanray.plan.build.COST`."""
    guided = request.guidance.high != 1.0 or request.guidance.low != 1.0
    shape = (request.width, request.height, request.num_frames)
    return (*shape, request.steps, request.shift, request.solver, guided)


def _cost_of_group(group: ShapeGroup) -> tuple[object, ...]:
    shape = (group.width, group.height, group.num_frames)
    return (*shape, group.steps, group.shift, group.solver, group.guided)


def _measured(key: _Key, times: _Times) -> Measured:
    stage, width, height, num_frames, num_steps, guided, world_size, topology, tflop = key
    return Measured(
        stage=stage,
        width=width,
        height=height,
        num_frames=num_frames,
        num_steps=num_steps,
        guided=guided,
        world_size=world_size,
        topology=topology,
        tflop=tflop,
        count=times.count,
        mean_s=round(times.sum_s / times.count, 4),
        median_s=round(statistics.median(times.sample_s), 4),
    )
