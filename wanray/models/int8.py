"""Linear layers with int8 weights: a quarter of the memory of float32, for the text encoder on a CPU.

Only weights are rounded, one scale per output channel. Rounding activations as well is two to three times
faster and not offered: few large activations, which T5 is known for, then drown the others.

Shape suffixes: N rows, I input channels, O output channels; ... any.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from wanray.checkpoint import Component
from wanray.models.load import load_network
from wanray.models.official.tensors import read_tensors
from wanray.models.state import DTYPES

LEVELS = 127
BLOCK = 2**22
"""Weights that are made float32 at once on a CPU: few enough to stay in its cache until they are used."""
SMALL_BLOCK = 2**18
"""The same while weights are rounded: larger temporaries leave holes in the heap, hundreds of megabytes."""


class Int8Linear(torch.nn.Module):
    """A linear layer without bias, as `weight` [O, I] in int8 and `scale` [O] in float32.

    On a CPU the product is float32, whatever the input: as fast as in a float32 layer, and many times faster
    than in a bfloat16 layer where the CPU has no bfloat16 instructions. On a GPU (untested) it is in the
    input's dtype, in which the integers are exact. The output has the input's dtype.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        assert linear.bias is None, "UMT5 has no biases"
        weight_OI = linear.weight.detach()
        # buffers: what gives parameters another dtype leaves them alone
        self.register_buffer("weight", torch.empty(weight_OI.shape, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(len(weight_OI)))
        for rows in _blocks(weight_OI.shape, SMALL_BLOCK):
            block_OI = weight_OI[rows].float()
            scale_O = (block_OI.abs().amax(1) / LEVELS).clamp_(min=torch.finfo(torch.float32).tiny)
            self.weight[rows] = block_OI.div(scale_O[:, None]).round_()
            self.scale[rows] = scale_O

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., I] to [..., O]; on a CPU each row has the same bits in any company."""
        inputs_NI = inputs.flatten(0, -2)
        product = self._in_blocks if inputs.device.type == "cpu" else self._at_once
        outputs_NO = product(inputs_NI) * self.scale
        return outputs_NO.to(inputs.dtype).view(*inputs.shape[:-1], -1)

    def _in_blocks(self, inputs_NI: torch.Tensor) -> torch.Tensor:
        floats_NI = inputs_NI.float()
        outputs_NO = floats_NI.new_empty(len(floats_NI), len(self.weight))
        for rows in _blocks(self.weight.shape, BLOCK):
            torch.mm(floats_NI, self.weight[rows].float().T, out=outputs_NO[:, rows])
        return outputs_NO

    def _at_once(self, inputs_NI: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs_NI, self.weight.to(inputs_NI.dtype))


def _blocks(shape: torch.Size, size: int) -> Iterator[slice]:
    num_rows, num_columns = shape
    step = max(1, size // num_columns)
    return (slice(start, start + step) for start in range(0, num_rows, step))


def quantise(encoder: Any) -> None:
    """Replace the linear layers in the blocks of a UMT5 encoder, one after the other; all else stays."""
    for module in list(encoder.encoder.block.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, Int8Linear(child))


def load_int8(component: Component, dtype: torch.dtype, device: str, *, aligned: bool = True) -> Any:
    """The UMT5 encoder of `component` with `Int8Linear`; its other parameters are `dtype`.

    It is read in the dtype in which it is stored, through mmap, so that no copy of it in floats is ever
    allocated; a GPU gets nothing but the result.

    Raises:
        ConfigError: as `load_network`.
    """
    encoder = load_network(component, _stored_dtype(component, dtype), "cpu", aligned=aligned)
    quantise(encoder)
    for parameter in encoder.parameters():
        parameter.data = parameter.data.to(dtype, copy=True)  # a copy even so: it lets go of the files
    return encoder.to(device)


def _stored_dtype(component: Component, default: torch.dtype) -> torch.dtype:
    """Of the first tensor, if it is one of `DTYPES`."""
    try:
        _, tensor = next(read_tensors(component.files))
    except (FileNotFoundError, StopIteration):  # loading refuses both and says why
        return default
    return tensor.dtype if tensor.dtype in DTYPES.values() else default
