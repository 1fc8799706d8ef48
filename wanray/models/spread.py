"""One network over the several GPUs of one worker: consecutive parts of it, each where its weights are.

A GPU is told of work and does it later. So while one computes, the one before it already has the next input,
if there is any: what is asked for piece by piece, such as the frames of a clip, keeps all of them busy.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

Item = TypeVar("Item")


def spread(parts: Sequence[Sequence[nn.Module]], costs: Sequence[float], devices: Sequence[str]) -> None:
    """Put `parts`, which compute in this order, on `devices`, as evenly as whole parts can be.

    parts: of modules that stay together.
    costs: of each part, in any unit.
    """
    bounds = [0, *_cuts(costs, min(len(devices), len(parts))), len(parts)]
    for device, (begin, end) in zip(devices, itertools.pairwise(bounds), strict=False):
        for module in itertools.chain.from_iterable(parts[begin:end]):
            _place(module, device)


def _cuts(costs: Sequence[float], number: int) -> tuple[int, ...]:
    """Where to cut `costs` into `number` runs so that the dearest is as cheap as can be."""

    def dearest(cuts: tuple[int, ...]) -> float:
        bounds = [0, *cuts, len(costs)]
        return max(sum(costs[begin:end]) for begin, end in itertools.pairwise(bounds))

    return min(itertools.combinations(range(1, len(costs)), number - 1), key=dearest)


def _place(module: nn.Module, device: str) -> None:
    """Move `module` to `device`, and from now on its tensor arguments too."""

    def move(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return tuple(_to(value, device) for value in args), {k: _to(v, device) for k, v in named.items()}

    module.to(device).register_forward_pre_hook(move, with_kwargs=True)


def _to(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each given when the one after it has been begun."""
    waiting = list[Item]()
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting
