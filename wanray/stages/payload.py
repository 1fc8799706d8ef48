"""The tensors that travel in a record, as safetensors bytes. Knows formats, not computations."""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from wanray.models.state import DenoiseState


@dataclass(frozen=True, slots=True)
class Payload:
    """What the next stage needs: text embeddings (trimmed, [L, D]), the state of the denoise loop, and what
    else steers it (`wanray.models.conditions`)."""

    prompt_LD: torch.Tensor | None = None
    negative_LD: torch.Tensor | None = None
    state: DenoiseState | None = None
    conditions: dict[str, torch.Tensor] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Safetensors bytes; the loop's scalars stand in the header."""
        tensors = {"prompt": self.prompt_LD, "negative": self.negative_LD}
        tensors |= {f"condition.{name}": tensor for name, tensor in self.conditions.items()}
        metadata = {}
        if self.state is not None:
            tensors |= {"latents": self.state.latents_BCTHW}
            tensors |= {f"history.{name}": tensor for name, tensor in self.state.history.items()}
            metadata["state"] = json.dumps({"step": self.state.step, "scalars": self.state.scalars})
        present = {name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
        return save(_without_sharing(present), metadata=metadata)

    @staticmethod
    def unpack(data: bytes) -> "Payload":
        """The payload that `pack` wrote; all tensors on the CPU."""
        tensors = load(data)
        text = _metadata(data).get("state")
        state = None
        if text is not None:
            values = json.loads(text)
            state = DenoiseState(
                tensors["latents"], values["step"], _below("history.", tensors), values["scalars"]
            )
        conditions = _below("condition.", tensors)
        return Payload(tensors.get("prompt"), tensors.get("negative"), state, conditions)


def pack_tensors(value: tuple[dict[str, torch.Tensor], Any]) -> bytes:
    """Tensors, and what else is to be known of them, as JSON can hold it."""
    tensors, facts = value
    return save(tensors, metadata={"facts": json.dumps(facts)})


def unpack_tensors(data: bytes) -> tuple[dict[str, torch.Tensor], Any] | None:
    """What `pack_tensors` took; None for anything else."""
    try:
        return load(data), json.loads(_metadata(data)["facts"])
    except (SafetensorError, KeyError, ValueError):
        return None


def _metadata(data: bytes) -> dict[str, str]:
    """The texts in a safetensors header."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _without_sharing(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Safetensors refuses tensors that share memory, as a solver's last sample and the latents may."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        result[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return result
