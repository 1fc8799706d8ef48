"""What several threads ask for at the same time, computed together by one more thread."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


class Batcher(Generic[Item, Value]):
    """Whoever asks while `compute` is at work waits for the next batch.

    A batch that raises is done again one by one, so that each item gets its own value or its own error.
    """

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Value]]) -> None:
        self._compute = compute
        self._waiting: list[tuple[Item, Future[Value]]] = []
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1)

    def get(self, item: Item) -> Value:
        """The value of `item`; raises what `compute` raises."""
        future: Future[Value] = Future()
        with self._lock:
            self._waiting.append((item, future))
        self._thread.submit(self._work)
        return future.result()

    def close(self) -> None:
        """End the thread, after what it does now."""
        self._thread.shutdown(wait=False)

    def _work(self) -> None:
        """Asked once per item, so that the calls after a batch find less to do, or nothing."""
        with self._lock:
            batch, self._waiting = self._waiting, []
        if batch:
            self._answer(batch)

    def _answer(self, batch: list[tuple[Item, "Future[Value]"]]) -> None:
        try:
            values = self._compute([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 it belongs to those who asked
            if len(batch) == 1:
                return batch[0][1].set_exception(error)
            for one in batch:
                self._answer([one])
            return None
        for (_, future), value in zip(batch, values, strict=True):
            future.set_result(value)
        return None
