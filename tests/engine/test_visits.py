"""Requests that come to their pool twice: who takes them, and how often gangs swap."""

import asyncio
import random

import pytest

from wanray.engine.dispatch import Dispatch, GangState
from wanray.engine.visits import Turns

IDLE, DOWN = GangState.IDLE, GangState.DOWN


def test_a_gang_stays_with_its_visit_until_its_turn_is_over():
    turns, taken = Turns(1, in_a_row=3), []
    for _ in range(9):
        gang, visit = turns.choose([0], {0, 1})
        turns.took(gang, visit)
        taken.append(visit)
    assert taken == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_nobody_swaps_for_nothing_and_nobody_waits_for_nothing():
    turns = Turns(2, in_a_row=2)
    for gang, visit in ((0, 0), (1, 1)):
        turns.took(gang, visit)
    assert turns.choose([0, 1], {0}) == (0, 0)
    assert turns.choose([0, 1], {1}) == (1, 1)
    assert turns.choose([0], {1}) == (0, 1), "what waits is taken, if by a swap"
    for _ in range(5):
        turns.took(0, 0)
    assert turns.choose([0], {0}) == (0, 0), "a turn is not over while nothing else waits"
    assert turns.choose([0], {0, 1}) == (0, 1)


def test_a_gang_that_is_built_again_holds_what_the_first_visit_needs():
    turns = Turns(2, in_a_row=9)
    turns.took(0, 1)
    turns.took(1, 1)
    turns.begin_anew(1)
    assert turns.choose([0, 1], {0}) == (1, 0)


class World:
    """Requests of two visits on gangs; counts swaps."""

    def __init__(self, num_gangs, in_a_row, seed):
        self.dispatch = Dispatch(num_gangs, visits=2, in_a_row=in_a_row)
        self.held = [0] * num_gangs
        self.swaps, self.visits = 0, []
        self.chance = random.Random(seed)

    async def request(self, key, room):
        for visit in (0, 1):
            gang = await self.dispatch.take(False, visit)
            self.swaps += self.held[gang] != visit
            self.held[gang] = visit
            self.visits.append((key, visit))
            for _ in range(self.chance.randrange(1, 4)):
                await asyncio.sleep(0)
            self.dispatch.leave(gang)
        room.release()

    async def play(self, number, at_once):
        for gang in range(len(self.held)):
            self.dispatch.change(gang, IDLE)
        room, tasks = asyncio.Semaphore(at_once), []
        for key in range(number):
            await room.acquire()
            tasks.append(asyncio.ensure_future(self.request(key, room)))
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_gangs", [1, 3])
def test_all_requests_come_to_their_end_with_few_swaps(num_gangs, seed):
    """With room for many, a gang swaps once for many halves."""
    world = World(num_gangs, in_a_row=8, seed=seed)
    asyncio.run(world.play(96, at_once=16 * num_gangs))
    assert sorted(world.visits) == [(key, visit) for key in range(96) for visit in (0, 1)]
    assert 2 * 96 / world.swaps > 5


def test_with_little_room_gangs_swap_more_often_but_nothing_stands_still():
    world = World(2, in_a_row=8, seed=1)
    asyncio.run(world.play(40, at_once=2))
    assert len(world.visits) == 80


def test_a_suspect_of_the_second_visit_is_tried_alone_and_leaves_its_expert_behind():
    async def main():
        dispatch = Dispatch(1, visits=2, in_a_row=8)
        dispatch.change(0, IDLE)
        assert await dispatch.take(True, 1) == 0
        later, sooner = (asyncio.ensure_future(dispatch.take(False, visit)) for visit in (0, 1))
        await asyncio.sleep(0)
        dispatch.leave(0)
        assert await sooner == 0
        assert not later.done()
        dispatch.leave(0)
        assert await later == 0

    asyncio.run(main())
