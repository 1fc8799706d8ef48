"""Load one network of a Diffusers folder: only its own files, through safetensors mmap, and complete."""

from typing import Any

import torch

from wanray.errors import ConfigError


def load_network(network: Any, folder: str, dtype: torch.dtype, device: str) -> Any:
    """The diffusers or transformers class `network` with the weights in `folder`, ready for inference.

    Both libraries fill tensors that the files lack with random numbers, or fail in their own words.

    Raises:
        ConfigError: the files do not hold what the network needs.
    """
    try:
        loaded, info = network.from_pretrained(
            folder, dtype=dtype, local_files_only=True, low_cpu_mem_usage=True, output_loading_info=True
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"model.path is damaged: {folder} does not load: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        names = f"{missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}"
        raise ConfigError(f"model.path is damaged: the weights in {folder} lack {names}; copy them again")
    return loaded.eval().to(device)
