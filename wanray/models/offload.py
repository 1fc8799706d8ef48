"""A transformer that stays in the host's memory: each block visits the device for its own forward.

For GPUs that do not hold one expert; what diffusers calls sequential, by blocks. Weights that are stored in
the dtype of the run lie in the page cache, which all processes of a node share; nothing is ever written back.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from wanray.models.load import blocks_of


class _Slot(NamedTuple):
    """Where a module keeps a parameter or a buffer, and what lies there on the host."""

    module: nn.Module
    name: str
    home: torch.Tensor

    def fill(self, tensor: torch.Tensor) -> None:
        """Put `tensor` there."""
        is_parameter = isinstance(self.home, nn.Parameter)
        setattr(self.module, self.name, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def keep_on_host(transformer: Any, device: str) -> Any:
    """Leave the blocks of `transformer`, which is on the CPU, where they are; all else moves to `device`."""
    blocks = blocks_of(transformer)
    staying = {module for block in blocks for module in block.modules()}
    for slot in _slots(module for module in transformer.modules() if module not in staying):
        slot.fill(slot.home.to(device))
    for block in blocks:
        _visit(block, device)
    return transformer


def _visit(block: nn.Module, device: str) -> None:
    """Let every forward of `block` begin with copies of its weights on `device`, and end without them."""
    slots = list(_slots(block.modules()))

    def come(*_: object) -> None:
        for slot in slots:
            slot.fill(slot.home.to(device, copy=True))

    def leave(*_: object) -> None:
        for slot in slots:
            setattr(slot.module, slot.name, slot.home)

    block.register_forward_pre_hook(come)
    block.register_forward_hook(leave, always_call=True)


def _slots(modules: Iterable[nn.Module]) -> Iterator[_Slot]:
    for module in list(modules):
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield _Slot(module, name, tensor)
