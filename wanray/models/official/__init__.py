"""Networks of the official layout: their configuration from tensor shapes, their tensors under the names that
diffusers and transformers use."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from wanray.checkpoint.shapes import TensorShapes
from wanray.models.official import image_encoder, text_encoder, transformer, vae


@dataclass(frozen=True, slots=True)
class Rules:
    """What is to know about one kind of network."""

    config: Callable[[TensorShapes, dict[str, Any]], dict[str, Any]]
    """Shapes and the component's `config` -> arguments of the network's class (or of its config class)."""
    convert: Callable[[str, torch.Tensor, dict[str, Any]], Iterator[tuple[str, torch.Tensor]]]
    """Official name, tensor and those arguments -> the tensors it becomes, with names; none if unused."""


RULES = {
    "transformer": Rules(transformer.network_config, transformer.convert),
    "text_encoder": Rules(text_encoder.network_config, text_encoder.convert),
    "image_encoder": Rules(image_encoder.network_config, image_encoder.convert),
    "vae": Rules(vae.network_config, vae.convert),
}
"""By the component's role."""
