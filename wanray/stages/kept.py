"""Values that a cache keeps: computed once, in this process, in others and in later runs. No torch."""

from collections.abc import Callable
from typing import Generic

from wanray.sinks.cache import Cache
from wanray.stages.once import Once, Value
from wanray.storage import Store


class Kept(Generic[Value]):
    """The latest `capacity` in memory; all of them at `url`, unless that is None.

    pack, unpack: between a value and its bytes; `unpack` gives None for what another version wrote.
    """

    def __init__(
        self,
        kind: str,
        url: str | None,
        capacity: int,
        pack: Callable[[Value], bytes],
        unpack: Callable[[bytes], Value | None],
    ) -> None:
        self._once: Once[Value] = Once(capacity)
        self._cache = None if url is None else Cache(Store.open(url), kind)
        self._pack, self._unpack = pack, unpack

    def get(self, parts: tuple[str, ...], compute: Callable[[], Value]) -> Value:
        """What `compute` makes; `parts` are all that decides it. Nobody may change the value."""
        name = Cache.name(*parts)
        return self._once.get(name, lambda: self._get(name, compute))

    def _get(self, name: str, compute: Callable[[], Value]) -> Value:
        if self._cache is None:
            return compute()
        data = self._cache.get(name)
        if data is not None and (known := self._unpack(data)) is not None:
            return known
        value = compute()
        self._cache.put(name, self._pack(value))
        return value


def place(device: str, num_threads: int) -> str:
    """What decides rounding beside dtype: sums on a CPU depend on its threads."""
    return device if device != "cpu" else f"cpu, {num_threads} threads"
