"""The layout that is chosen, against an independent search through all that there are."""

import math
import random
from dataclasses import dataclass, replace
from itertools import product

import pytest
from works import make_config, make_profile, make_work, measured

from wanray.errors import ConfigError
from wanray.plan.pools import shape_groups
from wanray.plan.search import best_layout
from wanray.registry import MODELS

NUM_CASES = 200
AS_GOOD = 0.96
GIB = 2**30
SHAPES = [(832, 480, 49), (832, 480, 81), (1280, 720, 81), (640, 352, 33)]


@dataclass(frozen=True)
class Case:
    """What a user may come with."""

    gpus: int
    gib: int
    steps: int
    shift: float
    boundary: float
    shapes: dict
    expert_gb: float
    host_gb_per_s: float
    swap_after: int

    @property
    def work(self):
        row = MODELS["t2v-a14b"]
        costs = {
            (*shape, self.steps, self.shift, "unipc", True): number for shape, number in self.shapes.items()
        }
        groups = shape_groups(costs, row, row.dims, self.boundary, "official")
        return replace(make_work(self.shapes), groups=groups, expert_bytes=round(self.expert_gb * 1e9))

    def config(self, folder):
        return make_config(
            folder,
            f"denoise.gpus={self.gpus}",
            f"estimate.gpu_gib={self.gib}",
            f"estimate.host_gb_per_s={self.host_gb_per_s}",
            f"denoise.swap_after={self.swap_after}",
        )


def random_case(seed):
    chance = random.Random(seed)
    shapes = chance.sample(SHAPES, chance.randrange(1, 4))
    return Case(
        gpus=chance.randrange(2, 65),
        gib=chance.choice([40, 48, 80, 96, 140, 180]),
        steps=chance.randrange(4, 61),
        shift=chance.uniform(1.0, 14.0),
        boundary=chance.uniform(0.3, 0.98),
        shapes={shape: chance.randrange(20_000, 50_000) for shape in shapes},
        expert_gb=chance.uniform(10.0, 30.0),
        host_gb_per_s=chance.uniform(1.0, 50.0),
        swap_after=chance.choice([1, 2, 8, 16]),
    )


class BruteForce:
    """Written for this test: its own times, its own memory, every number of gangs."""

    def __init__(self, case):
        self.case, self.work = case, case.work
        self.num_requests = sum(case.shapes.values())

    def topologies(self):
        for cfg, ulysses, divides_weights in product((1, 2), range(1, 9), (False, True)):
            if cfg * ulysses <= 8 and 40 % ulysses == 0:
                yield cfg, ulysses, divides_weights

    def gib(self, topology, num_held):
        cfg, ulysses, divides_weights = topology
        expert = self.case.expert_gb * 1e9
        weights = num_held * expert
        if divides_weights and cfg * ulysses > 1:
            weights = weights / (cfg * ulysses) + 2 * expert / 40
        tokens = max(group.tokens for group in self.work.groups) / ulysses
        return (weights + tokens * 5120 * 80) / GIB + 3

    def request_s(self, topology, experts):
        cfg, ulysses, _ = topology
        speed = 790 * 0.5 * (1.9 if cfg == 2 else 1.0) * ulysses / (1 + 0.027 * (ulysses - 1))
        tflop = 0.0
        for group in self.work.groups:
            steps = sum(group.steps_per_expert[expert] for expert in experts)
            tflop += group.num_requests * group.tflop_per_clip * steps / group.steps
        return tflop / self.num_requests / speed

    def swap_s(self, topology):
        cfg, ulysses, divides_weights = topology
        size = cfg * ulysses if divides_weights else 1
        return 2 * self.case.expert_gb / size / self.case.host_gb_per_s / self.case.swap_after

    def fitting(self, num_held):
        return [item for item in self.topologies() if self.gib(item, num_held) <= 0.95 * self.case.gib]

    def best_per_s(self):
        """Requests per second, of the best layout."""
        rates = [0.0]
        for placement, held in (("both", 2), ("swap", 1)):
            for topology in self.fitting(held):
                seconds = self.request_s(topology, ("high", "low"))
                seconds += self.swap_s(topology) if placement == "swap" else 0.0
                rates.append(self.case.gpus // (topology[0] * topology[1]) / seconds)
        high, low = ({self.pool_of(item, expert) for item in self.fitting(1)} for expert in ("high", "low"))
        for (high_size, high_s), (low_size, low_s) in product(high, low):
            for number in range(1, self.case.gpus // high_size + 1):
                rest = (self.case.gpus - number * high_size) // low_size
                of_high = number / high_s if high_s else math.inf
                of_low = rest / low_s if low_s else math.inf
                rates.append(min(of_high, of_low) if rest else 0.0)
        return max(rates)

    def pool_of(self, topology, expert):
        """GPUs of a gang, and its seconds for a request."""
        return topology[0] * topology[1], self.request_s(topology, (expert,))

    def rate_of(self, layout):
        """Of a layout that was chosen."""
        rates = []
        for pool, gangs in layout.gangs.items():
            experts = {"denoise_high": ("high",), "denoise_low": ("low",)}.get(pool, ("high", "low"))
            topology = (gangs.topology.cfg, gangs.topology.ulysses, gangs.topology.fsdp > 1)
            seconds = self.request_s(topology, experts)
            seconds += self.swap_s(topology) if layout.placement == "swap" else 0.0
            rates.append(gangs.number / seconds if seconds else math.inf)
        return min(rates)


def test_two_hundred_cases_are_as_good_as_the_best_and_never_above_memory(tmp_path):
    worst, refused, placements = 1.0, 0, set()
    for seed in range(NUM_CASES):
        case = random_case(seed)
        force = BruteForce(case)
        best_per_s = force.best_per_s()
        try:
            layout = best_layout(case.config(tmp_path), case.work).best
        except ConfigError:
            assert best_per_s == 0.0, f"{case} was refused"
            refused += 1
            continue
        placements.add(layout.placement)
        worst = min(worst, force.rate_of(layout) / best_per_s)
        check_size(case, force, layout)
    assert worst >= AS_GOOD
    assert refused < NUM_CASES / 4
    assert placements == {"split", "both", "swap"}, "the cases are too much alike"


def check_size(case, force, layout):
    used = sum(gangs.number * gangs.topology.world_size for gangs in layout.gangs.values())
    assert used == layout.num_gpus <= case.gpus
    for gangs in layout.gangs.values():
        topology = (gangs.topology.cfg, gangs.topology.ulysses, gangs.topology.fsdp > 1)
        assert gangs.topology.ring == 1
        assert force.gib(topology, 2 if layout.placement == "both" else 1) <= 0.95 * case.gib


@pytest.fixture
def chosen(tmp_path):
    """chosen(shapes, *overrides) -> the best layout for an A14B on H100s."""

    def run(shapes, *overrides):
        return best_layout(make_config(tmp_path, *overrides), make_work(shapes)).best

    return run


def test_few_clips_get_large_gangs_and_many_small_ones(chosen):
    few = chosen({(1280, 720, 81): 1}, "denoise.gpus=8")
    many = chosen({(1280, 720, 81): 1000}, "denoise.gpus=8")
    assert max(gangs.topology.world_size for gangs in few.gangs.values()) == 8
    assert all(gangs.topology.world_size == 1 for gangs in many.gangs.values())
    assert few.clip_s < many.clip_s / 4


def test_a_placement_that_is_asked_for_is_kept(chosen):
    for placement in ("split", "swap", "both"):
        layout = chosen({(832, 480, 81): 100}, "denoise.gpus=8", f"placement={placement}")
        assert layout.placement == placement


def test_weights_are_divided_only_where_they_must_be(chosen):
    small = chosen({(832, 480, 49): 100}, "denoise.gpus=8", "estimate.gpu=A10", "placement=split")
    assert all(gangs.topology.fsdp > 1 for gangs in small.gangs.values())
    large = chosen({(832, 480, 49): 100}, "denoise.gpus=8", "placement=split")
    assert all(gangs.topology.fsdp == 1 for gangs in large.gangs.values())


def test_blocks_that_stay_on_the_host_fit_where_nothing_else_does_and_are_never_divided(chosen):
    shapes, small = {(832, 480, 49): 100}, ("denoise.gpus=1", "estimate.gpu_gib=20")
    with pytest.raises(ConfigError, match=r"or denoise\.offload=sequential$"):
        chosen(shapes, *small)
    layout = chosen(shapes, *small, "denoise.offload=sequential")
    assert layout.placement in ("both", "split")
    assert all(gangs.topology.fsdp == 1 for gangs in layout.gangs.values())


def test_what_fits_nowhere_is_refused_with_the_remedy(tmp_path):
    config = make_config(tmp_path, "denoise.gpus=8", "estimate.gpu_gib=6")
    with pytest.raises(ConfigError, match=r"no gang of up to 8 GPUs of 6.0 GiB holds t2v-a14b .* use more"):
        best_layout(config, make_work({(832, 480, 81): 10}))


def test_measured_times_decide_before_the_model_does(tmp_path):
    """A profile in which the low expert takes three times as long moves three quarters of the gangs there."""
    shape = (832, 480, 81)
    work = make_work({shape: 10_000})
    steps = work.groups[0].steps_per_expert
    times = [("denoise_high", "high", 100.0), ("denoise_low", "low", 300.0)]
    entries = [
        measured(stage, shape, seconds, num_steps=steps[expert], guided=True, tflop=1.0)
        for stage, expert, seconds in times
    ]
    config = make_config(tmp_path, "denoise.gpus=8", "placement=split")
    layout = best_layout(config, replace(work, profile=make_profile(*entries))).best
    assert {name: gangs.number for name, gangs in layout.gangs.items()} == {
        "denoise_high": 2,
        "denoise_low": 6,
    }


def test_one_expert_has_one_pool(tmp_path):
    config = make_config(tmp_path, "denoise.gpus=6")
    layout = best_layout(config, make_work({(832, 480, 81): 100}, "t2v-1.3b")).best
    assert (layout.placement, layout.num_gpus) == ("single", 6)
    assert layout.applied(config).pools.denoise.gangs == 6
