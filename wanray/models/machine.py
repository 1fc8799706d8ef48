"""What torch and its kin find on this machine: `python -m wanray.models.machine` prints it as JSON.

A process of its own, so that a broken library or a driver that hangs harms nobody.
"""

import importlib
import json
import subprocess
import sys
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from wanray.models.xdit import import_xfuser

LIBRARIES = ("flash_attn", "flash_attn_interface", "sageattention", "xfuser")
"""Optional: attention of FlashAttention 2, of 3, of SageAttention; parallel gangs."""
_SDPA = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def look() -> dict[str, Any]:
    """All of it; `libraries` has a version, `absent`, or why the import failed."""
    has_gpu = torch.cuda.is_available()
    gpus = [_gpu(number) for number in range(torch.cuda.device_count())] if has_gpu else []
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": _driver_version() if has_gpu else None,
        "gpus": gpus,
        "sdpa": [name for name, backend in _SDPA.items() if has_gpu and _attends(backend)],
        "libraries": {name: _import(name) for name in LIBRARIES},
    }


def _gpu(number: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(number)
    return {
        "name": torch.cuda.get_device_name(number),
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
    }


def _driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def _attends(backend: SDPBackend) -> bool:
    """Whether a backend of torch's own attention takes what a Wan transformer gives it (heads of 128)."""
    query = torch.zeros(1, 2, 64, 128, device="cuda", dtype=torch.bfloat16)
    try:
        with sdpa_kernel([backend]):
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _import(name: str) -> str:
    try:
        if name == "xfuser":
            import_xfuser("cuda" if torch.cuda.is_available() else "cpu")
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        return "absent" if error.name == name else f"broken: {error}"
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"broken: {' '.join(str(error).split())[:200]}"
    return str(getattr(module, "__version__", "present"))


if __name__ == "__main__":
    json.dump(look(), sys.stdout)
