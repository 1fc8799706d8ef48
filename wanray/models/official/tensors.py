"""Tensors of weight files, as stored: mapped from safetensors and from what `torch.save` wrote."""

import pickle
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from wanray.errors import ConfigError


def read_tensors(files: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor, file by file; data is read from disk when it is used.

    Raises:
        ConfigError: a file does not load.
    """
    for file in files:
        try:
            yield from _mapped(file) if file.endswith(".safetensors") else _unpickled(file)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"model.path is damaged: {file} does not load: {reason}") from error


def _mapped(file: str) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (a safetensors handle cannot be iterated)
            yield name, tensors.get_tensor(name)


def _unpickled(file: str) -> Iterator[tuple[str, torch.Tensor]]:
    # only zip archives, which torch.save writes since 1.6, can be mapped
    can_map = zipfile.is_zipfile(Path(file))
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=can_map)
    yield from content.items()
