"""Load single networks of a Diffusers folder; each role reads only its own files, through mmap."""

from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.utils import logging as diffusers_logging


def load_transformer(folder: str, dtype: torch.dtype, device: str) -> WanTransformer3DModel:
    """One expert. Under bfloat16 diffusers keeps time embedding, modulation and norms in float32."""
    diffusers_logging.disable_progress_bar()
    transformer: Any = WanTransformer3DModel.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return transformer.eval().to(device)


def load_vae(folder: str, device: str) -> AutoencoderKLWan:
    """The VAE, always in float32."""
    diffusers_logging.disable_progress_bar()
    vae: Any = AutoencoderKLWan.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return vae.eval().to(device)
