"""Which attention kernel a gang computes with: the fastest exact one that works on the GPUs of all its ranks.

Knows this project's names for them, those of `denoise.attention`, and what xDiT calls the same.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from wanray.config import ATTENTIONS, RING_ATTENTIONS
from wanray.errors import ConfigError
from wanray.models import xdit

NAMES = {
    "flash_4": "FLASH_4",
    "flash_3": "FLASH_3",
    "cudnn": "CUDNN",
    "flash_2": "FLASH",
    "sdpa": "SDPA",
    "sage": "SAGE",
}
RING_NAMES = {name: NAMES[name] for name in RING_ATTENTIONS} | {"sdpa": "SDPA_FLASH"}
"""Of those that return a log-sum-exp; torch's own choice does not."""

_ERRORS = (RuntimeError, LookupError, NameError, ImportError, AttributeError, TypeError, ValueError, OSError)
"""How a kernel that is not there, or not made for this GPU, shows."""


def choose_attention(wanted: str, has_ring: bool, device: str, dtype: torch.dtype) -> tuple[str, str]:
    """Our name and xDiT's of a kernel that works on all ranks of the process group.

    wanted: `auto`, or one of `NAMES`; `sage` is lossy, and nobody gets it who does not ask.

    Raises:
        ConfigError: none works, or what is wanted does not.
    """
    if device == "cpu":
        return _checked(wanted, ["sdpa"], has_ring), "SDPA_FLASH"  # torch's own choice on CPUs
    names = RING_NAMES if has_ring else NAMES
    usable = _on_all_ranks([name for name in names if _works(names[name], device, dtype)])
    chosen = _checked(wanted, usable, has_ring)
    return chosen, names[chosen]


def _checked(wanted: str, usable: Sequence[str], has_ring: bool) -> str:
    exact = [name for name in ATTENTIONS if name in usable]
    if wanted == "auto" and exact:
        return exact[0]
    if wanted not in usable:
        key = "numerics.attention" if wanted == "sage" else "denoise.attention"
        beside = " with a ring" if has_ring else ""
        raise ConfigError(
            f"{key} {wanted} does not work{beside} on all devices of this gang: "
            f"what does is {', '.join(usable) or 'nothing'}"
        )
    return wanted


def _on_all_ranks(names: list[str]) -> list[str]:
    found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, names)
    return [name for name in names if all(name in others for others in found)]


def _works(backend: str, device: str, dtype: torch.dtype) -> bool:
    query_BHLD = torch.zeros(1, 2, 128, 128, device=device, dtype=dtype)
    try:
        xdit.attend(backend, query_BHLD)
        torch.cuda.synchronize()
    except _ERRORS:
        return False
    return True
