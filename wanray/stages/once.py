"""Values that many records share: computed once, however many threads ask at the same time."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Once(Generic[Value]):
    """The latest `capacity` values by name. What raises is not kept: the next who asks tries again."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = Lock()
        self._slots: OrderedDict[str, _Slot[Value]] = OrderedDict()

    def get(self, name: str, compute: Callable[[], Value]) -> Value:
        """The value called `name`; whoever asks while it is computed waits."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            if len(self._slots) > self._capacity:
                self._slots.popitem(last=False)
        with slot.lock:
            if not slot.values:
                slot.values.append(compute())
            return slot.values[0]


class _Slot(Generic[Value]):
    def __init__(self) -> None:
        self.lock = Lock()
        self.values: list[Value] = []
        """One, as soon as it is known."""
