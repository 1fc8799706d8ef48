"""What is computed together: everybody gets the own value or the own error, also when a batch breaks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wanray.stages.batcher import Batcher


@pytest.fixture
def batches():
    return []


@pytest.fixture
def batcher(batches):
    """Doubles numbers once `first` was let go; refuses any batch with a negative number."""
    begun, go = threading.Event(), threading.Event()

    def compute(items):
        batches.append(list(items))
        if items[0] == 0:
            begun.set()
            assert go.wait(10)
        if min(items) < 0:
            raise ValueError(f"negative: {min(items)}")
        return [2 * item for item in items]

    batcher = Batcher(compute)
    batcher.begun, batcher.go = begun, go
    yield batcher
    batcher.close()


def ask(batcher, numbers):
    """Futures of `numbers`, all asked for while the batcher is busy with 0."""
    threads = ThreadPoolExecutor(len(numbers) + 1)
    zero = threads.submit(batcher.get, 0)
    assert batcher.begun.wait(10)
    futures = [threads.submit(batcher.get, number) for number in numbers]
    while len(batcher._waiting) < len(numbers):
        threading.Event().wait(0.005)
    batcher.go.set()
    assert zero.result(timeout=10) == 0
    return futures


@pytest.mark.timeout(30)
def test_those_who_ask_meanwhile_are_answered_by_one_call(batcher, batches):
    assert sorted(future.result(timeout=10) for future in ask(batcher, [3, 1, 2])) == [2, 4, 6]
    assert [sorted(batch) for batch in batches] == [[0], [1, 2, 3]]


@pytest.mark.timeout(30)
def test_only_the_item_that_breaks_a_batch_gets_its_error(batcher):
    good, bad, other = ask(batcher, [1, -5, 2])
    assert (good.result(timeout=10), other.result(timeout=10)) == (2, 4)
    with pytest.raises(ValueError, match="negative: -5"):
        bad.result(timeout=10)
    assert batcher.get(7) == 14
