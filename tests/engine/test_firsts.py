"""The first request of a group goes alone; the others, and other groups, do not wait for more than that."""

import asyncio

import pytest

from wanray.engine.firsts import Firsts


def play(script):
    async def main():
        firsts, log = Firsts(), []

        async def request(name, group, ends, error=None):
            async with firsts.turn(group):
                log.append(f"{name} begins")
                await ends.wait()
                if error is not None:
                    raise error

        def start(*arguments):
            return asyncio.ensure_future(request(*arguments))

        await script(start, log)

    asyncio.run(main())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_others_of_its_group_wait_for_the_first_and_then_go_together():
    async def script(start, log):
        ends, later = asyncio.Event(), asyncio.Event()
        tasks = [start("a1", "a", ends), start("a2", "a", later), start("a3", "a", later)]
        tasks += [start("b1", "b", later), start("none", "", later)]
        await settle()
        assert log == ["a1 begins", "b1 begins", "none begins"]
        ends.set()
        await settle()
        assert log[3:] == ["a2 begins", "a3 begins"]
        later.set()
        await asyncio.gather(*tasks)

    play(script)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_first_that_does_not_come_through_holds_nobody(how):
    async def script(start, log):
        ends = asyncio.Event()
        first = start("a1", "a", ends, ValueError("broken"))
        await settle()
        second = start("a2", "a", ends)
        await settle()
        if how == "is cancelled":
            first.cancel()
        ends.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert log == ["a1 begins", "a2 begins"]

    play(script)
