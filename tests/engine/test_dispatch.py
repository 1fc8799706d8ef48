"""Which request goes to which gang: order, suspects, closing, and how long a silent gang is waited for."""

import asyncio

import pytest

from wanray.config import FaultsConfig
from wanray.engine.dispatch import Dispatch, GangState
from wanray.engine.patience import SHORTEST_S, Patience

IDLE, DOWN, LOST = GangState.IDLE, GangState.DOWN, GangState.LOST


def play(num_gangs, script, seats=1):
    """Run `script(dispatch, take)`; take(suspect) starts a request and lets it come as far as it can."""

    async def main():
        dispatch = Dispatch(num_gangs, seats)
        for gang in range(num_gangs):
            dispatch.change(gang, IDLE)

        async def take(suspect=False):
            task = asyncio.ensure_future(dispatch.take(suspect))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return task

        await script(dispatch, take)

    asyncio.run(main())


def test_requests_are_served_in_order():
    async def script(dispatch, take):
        first, second, third = await take(), await take(), await take()
        assert (first.result(), second.result(), third.done()) == (0, 1, False)
        dispatch.change(1, IDLE)
        assert await third == 1

    play(2, script)


def test_a_suspect_goes_first_but_never_two_at_once():
    async def script(dispatch, take):
        busy = [await take() for _ in range(3)]
        fresh, one, other = await take(), await take(suspect=True), await take(suspect=True)
        dispatch.change(busy[0].result(), IDLE)
        assert await one == 0
        dispatch.change(busy[1].result(), IDLE)
        assert await fresh == 1
        dispatch.change(busy[2].result(), IDLE)
        assert not other.done()
        dispatch.change(0, DOWN)  # the first suspect killed its gang
        assert await other == 2

    play(3, script)


def test_the_last_working_gang_is_not_risked_while_others_wait():
    async def script(dispatch, take):
        dispatch.change(0, DOWN)
        running = await take()
        suspect, fresh = await take(suspect=True), await take()
        dispatch.change(running.result(), IDLE)
        assert await fresh == 1
        assert not suspect.done()
        dispatch.change(1, IDLE)
        assert await suspect == 1  # nobody else waits

    play(2, script)


def test_requests_spread_over_the_seats_of_all_gangs():
    async def script(dispatch, take):
        taken = [await take() for _ in range(5)]
        assert [task.result() for task in taken[:4]] == [0, 1, 0, 1]
        assert not taken[4].done()
        dispatch.leave(1)
        assert await taken[4] == 1
        assert [dispatch.load(gang) for gang in (0, 1)] == [2, 2]

    play(2, script, seats=2)


def test_a_suspect_has_a_gang_to_itself():
    async def script(dispatch, take):
        for _ in range(4):
            await take()
        suspect, fresh = await take(suspect=True), await take()
        dispatch.leave(0)
        assert not suspect.done()
        assert not fresh.done(), "gang 0 is being emptied for the suspect"
        dispatch.leave(0)
        assert await suspect == 0
        assert not fresh.done(), "it stays alone"
        dispatch.leave(1)
        assert await fresh == 1
        dispatch.leave(0)
        assert [(await take()).result() for _ in range(2)] == [0, 0]

    play(2, script, seats=2)


def test_the_only_gang_is_emptied_for_a_suspect_and_then_free_again():
    async def script(dispatch, take):
        await take()
        suspect, fresh = await take(suspect=True), await take()
        assert not fresh.done()
        dispatch.leave(0)
        assert await suspect == 0
        dispatch.change(0, DOWN)
        dispatch.change(0, IDLE)
        assert await fresh == 0

    play(1, script, seats=3)


@pytest.mark.parametrize("num_gangs", [1, 2])
def test_where_only_one_gang_is_left_for_good_it_must_do(num_gangs):
    async def script(dispatch, take):
        for gang in range(1, num_gangs):
            dispatch.change(gang, LOST)
        running = await take()
        suspect, _ = await take(suspect=True), await take()
        dispatch.change(running.result(), IDLE)
        assert await suspect == 0

    play(num_gangs, script)


def test_a_cancelled_request_takes_no_gang():
    async def script(dispatch, take):
        running = await take()
        gone, waiting = await take(), await take()
        gone.cancel()
        dispatch.change(running.result(), IDLE)
        assert await waiting == 0

    play(1, script)


def test_closing_sends_all_away():
    async def script(dispatch, take):
        await take()
        waiting = [await take(), await take(suspect=True)]
        dispatch.close()
        assert [await task for task in waiting] == [None, None]
        assert await dispatch.take(False) is None

    play(1, script)


def test_when_all_gangs_are_lost_waiting_is_in_vain():
    async def script(dispatch, take):
        dispatch.change(0, DOWN)
        waiting = await take()
        dispatch.change(0, LOST)
        with pytest.raises(RuntimeError, match="lost"):
            await waiting
        with pytest.raises(RuntimeError, match="lost"):
            await dispatch.take(False)

    play(1, script)


def test_patience_follows_the_steps_of_the_same_shape():
    patience = Patience(FaultsConfig(stall_s=900, stall_factor=10))
    assert patience.limit_s("a") == 900
    for step_s in (20.0, 21.0, 500.0):
        patience.note("a", step_s)
    assert patience.limit_s("a") == 210
    assert patience.limit_s("b") == 900


def test_patience_never_ends_within_a_minute():
    patience = Patience(FaultsConfig())
    for _ in range(3):
        patience.note("a", 0.01)
    assert patience.limit_s("a") == SHORTEST_S


def test_where_most_requests_find_all_made_a_slow_one_does_not_hang():
    patience = Patience(FaultsConfig(stall_s=900), is_even=False)
    for _ in range(50):
        patience.note("a", 0.01)
    assert patience.limit_s("a") == 900
