"""Write tensors as safetensors files, one tensor after the other: memory holds one piece of one tensor.

Knows the file format and how shards are named; knows nothing of networks.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

PIECE = 2**24
"""Values converted and written at a time."""
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
"""As safetensors spells the dtypes that weights have."""


class Sink(Protocol):
    """What takes bytes."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Append."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """In the file, without its line in the header."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def into_shards(entries: Iterable[Entry], max_bytes: int) -> list[list[Entry]]:
    """Runs of entries of at most `max_bytes` each, or of a single larger one."""
    shards: list[list[Entry]] = [[]]
    filled = 0
    for entry in entries:
        if shards[-1] and filled + entry.num_bytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += entry.num_bytes
    return shards


def shard_names(stem: str, count: int) -> list[str]:
    """File names as diffusers and transformers look for them: `stem.safetensors`, or numbered ones."""
    if count == 1:
        return [f"{stem}.safetensors"]
    return [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def shard_index(shards: Mapping[str, list[Entry]]) -> bytes:
    """The JSON that says in which file each tensor lies."""
    weight_map = {entry.name: file for file, entries in shards.items() for entry in entries}
    total = sum(entry.num_bytes for entries in shards.values() for entry in entries)
    return (
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n"
    ).encode()


def write_shard(sink: Sink, entries: list[Entry], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write `tensors`, converted to what `entries` says, as one safetensors file."""
    # the widest first, so that each tensor begins at a multiple of its item size and can be mapped
    ordered = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    sink.write(_header(ordered))
    for entry in ordered:
        values = tensors[entry.name].contiguous().flatten()
        for piece in values.split(PIECE):
            sink.write(piece.to(entry.dtype).view(torch.uint8).numpy().data)


def _header(entries: list[Entry]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        end = start + entry.num_bytes
        header[entry.name] = {"dtype": NAMES[entry.dtype], "shape": entry.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
