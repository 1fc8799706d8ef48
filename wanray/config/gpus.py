"""Kinds of GPU, as their makers describe them. Facts only."""

from typing import NamedTuple


class Gpu(NamedTuple):
    """One kind."""

    tflops: float
    """Dense bfloat16; of H100 and H200 what they sustain, which is less than their 989."""
    gib: float
    """Memory that the driver tells of."""


GPUS = {
    "A10": Gpu(125.0, 22.0),
    "A100": Gpu(312.0, 79.2),
    "A100-40": Gpu(312.0, 39.4),
    "B200": Gpu(2250.0, 178.0),
    "H100": Gpu(790.0, 79.2),
    "H200": Gpu(790.0, 139.8),
    "L4": Gpu(121.0, 22.0),
    "L40S": Gpu(362.0, 44.4),
    "RTX-4090": Gpu(165.0, 23.5),
    "RTX-5090": Gpu(210.0, 31.4),
}
