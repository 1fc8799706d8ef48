"""Whether a device can still compute after an error."""

import torch


def is_healthy(device: str) -> bool:
    """False after an error that breaks the CUDA context for good; memory that an error left is given back."""
    if device != "cuda":
        return True
    try:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
