"""Whether a worker's devices can still compute after an error."""

from collections.abc import Sequence

import torch


def are_healthy(devices: Sequence[str]) -> bool:
    """False after an error that breaks a CUDA context for good; memory that an error left is given back."""
    if "cpu" in devices:
        return True
    try:
        torch.cuda.empty_cache()
        for device in devices:
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
