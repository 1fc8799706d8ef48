"""Tensors that a cache keeps: computed once, in this process, in others and in later runs."""

import json
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from wanray.sinks.cache import Cache
from wanray.stages.once import Once
from wanray.storage import Store

Tensors = dict[str, torch.Tensor]
Kept = tuple[Tensors, Any]
"""Tensors on the CPU, and what else is to be known, as JSON can hold it."""


class KeptTensors:
    """The latest `capacity` in memory; all of them at `url`, unless that is None."""

    def __init__(self, kind: str, url: str | None, capacity: int) -> None:
        self._once: Once[Kept] = Once(capacity)
        self._cache = None if url is None else Cache(Store.open(url), kind)

    def get(self, parts: tuple[str, ...], compute: Callable[[], Kept]) -> Kept:
        """What `compute` makes; `parts` are all that decides it. Nobody may change the tensors."""
        name = Cache.name(*parts)
        return self._once.get(name, lambda: self._get(name, compute))

    def _get(self, name: str, compute: Callable[[], Kept]) -> Kept:
        if self._cache is None:
            return compute()
        data = self._cache.get(name)
        if data is not None and (known := _unpacked(data)) is not None:
            return known
        tensors, facts = compute()
        self._cache.put(name, save(tensors, metadata={"facts": json.dumps(facts)}))
        return tensors, facts


def _unpacked(data: bytes) -> Kept | None:
    """None for what another version may have written."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load(data), json.loads(header["__metadata__"]["facts"])
    except (SafetensorError, KeyError, ValueError):
        return None


def place(device: str, num_threads: int) -> str:
    """What decides rounding beside dtype: sums on a CPU depend on its threads."""
    return device if device != "cpu" else f"cpu, {num_threads} threads"
