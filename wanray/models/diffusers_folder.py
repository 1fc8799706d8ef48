"""Which files a checkpoint has in Diffusers layout, and how each is made from a checkpoint of either layout.

Knows pipelines, configurations and which parameters keep float32; writes nothing itself.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin

from wanray.checkpoint import Checkpoint, Component
from wanray.checkpoint.diffusers import FOLDERS
from wanray.errors import ConfigError
from wanray.models.checks import misfits
from wanray.models.load import empty_network, iter_tensors, network_class
from wanray.models.shards import Entry, Sink, into_shards, shard_index, shard_names, write_shard
from wanray.registry import Model

FLOAT32_ROLES = ("vae", "image_encoder")
"""Networks that compute in float32 whatever `numerics.dtype` says."""
IMAGE_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""What the released folders have; mean and deviation are CLIP's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """A file of the new folder."""

    name: str
    """Path in the folder."""
    write: Callable[[Sink], object]
    num_bytes: int
    """About; for the room on the disk."""
    num_tensors: int = 0


def outputs(checkpoint: Checkpoint, dtype: torch.dtype, max_shard_bytes: int) -> list[Output]:
    """All files, in the order in which they are made; reads names and shapes of all tensors, but no data.

    Raises:
        ConfigError: the checkpoint does not hold exactly what its networks need.
    """
    parts = {"text_encoder": checkpoint.text_encoder, "vae": checkpoint.vae}
    parts |= {FOLDERS[name]: component for name, component in checkpoint.transformers.items()}
    if checkpoint.image_encoder:
        parts["image_encoder"] = checkpoint.image_encoder
    small = _copies(checkpoint) if checkpoint.layout == "diffusers" else _made(checkpoint, parts)
    files = [*small, *_copied(Path(checkpoint.tokenizer), "tokenizer")]
    for name, component in parts.items():
        files += _network(name, component, dtype, max_shard_bytes)
    return files


def model_index(model: Model, networks: dict[str, Any]) -> dict[str, Any]:
    """`model_index.json`: the pipeline that diffusers loads the folder as, with its parts.

    networks: the class of each part.
    """
    index: dict[str, Any] = {"_class_name": _pipeline(model), "boundary_ratio": model.boundary}
    if index["_class_name"] != "WanVACEPipeline":
        index["expand_timesteps"] = model.has_token_timesteps
    index["scheduler"] = ["diffusers", "UniPCMultistepScheduler"]
    index["tokenizer"] = ["transformers", "T5Tokenizer"]
    index["transformer_2"] = [None, None]
    if index["_class_name"] == "WanImageToVideoPipeline":
        processor = ["transformers", "CLIPImageProcessor"] if "image_encoder" in networks else [None, None]
        index |= {"image_encoder": [None, None], "image_processor": processor}
    for name, network in networks.items():
        index[name] = ["diffusers" if issubclass(network, ModelMixin) else "transformers", network.__name__]
    return index


def dtype_of(component: Component, name: str, stored: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """The dtype to write the tensor `name` in: never wider than stored, but for what computes in float32."""
    if component.role in FLOAT32_ROLES:
        return torch.float32
    if component.role == "transformer":
        kept = set(network_class(component)._keep_in_fp32_modules or ())
        if kept & set(name.split(".")):
            wanted = torch.float32
    return stored if stored.itemsize < wanted.itemsize else wanted


def _pipeline(model: Model) -> str:
    """As the released folders say; WanPipeline stands for both tasks of the 5B model."""
    if model.dims.num_vace_blocks:
        return "WanVACEPipeline"
    return "WanImageToVideoPipeline" if model.has_image_latents else "WanPipeline"


def _made(checkpoint: Checkpoint, parts: dict[str, Component]) -> Iterator[Output]:
    """The small files that official folders lack."""
    networks = {name: network_class(component) for name, component in parts.items()}
    yield _json("model_index.json", model_index(checkpoint.model, networks))
    yield _json("scheduler/scheduler_config.json", checkpoint.scheduler)
    if checkpoint.image_encoder:
        yield _json("image_processor/preprocessor_config.json", IMAGE_PROCESSOR)


def _copies(checkpoint: Checkpoint) -> Iterator[Output]:
    """The small files of a Diffusers folder."""
    source = Path(checkpoint.path)
    yield _bytes("model_index.json", (source / "model_index.json").read_bytes())
    yield from _copied(source / "scheduler", "scheduler")
    if checkpoint.image_processor:
        yield from _copied(Path(checkpoint.image_processor), "image_processor")


def _copied(folder: Path, name: str) -> Iterator[Output]:
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        yield _bytes(f"{name}/{file.name}", file.read_bytes())


def _network(folder: str, component: Component, dtype: torch.dtype, max_bytes: int) -> Iterator[Output]:
    network = network_class(component)
    entries = _entries(component, dtype)
    yield _json(f"{folder}/config.json", _config(component, entries))
    stem = "diffusion_pytorch_model" if issubclass(network, ModelMixin) else "model"
    shards = into_shards(entries, max_bytes)
    by_file = dict(zip(shard_names(stem, len(shards)), shards, strict=True))
    for file, part in by_file.items():
        yield Output(
            name=f"{folder}/{file}",
            write=partial(_write, component, part),
            num_bytes=sum(entry.num_bytes for entry in part),
            num_tensors=len(part),
        )
    if len(shards) > 1:
        yield _bytes(f"{folder}/{stem}.safetensors.index.json", shard_index(by_file))


def _write(component: Component, entries: list[Entry], sink: Sink) -> None:
    wanted = {entry.name for entry in entries}
    # mapped: those not wanted are never read
    write_shard(sink, entries, {name: tensor for name, tensor in iter_tensors(component) if name in wanted})


def _entries(component: Component, dtype: torch.dtype) -> list[Entry]:
    """What is to be written, after a check that it is what the network needs."""
    if wrong := misfits(component):
        raise ConfigError(
            f"model.path is damaged: {component.path}, as a {network_class(component).__name__}, "
            f"{'; '.join(wrong)}; copy or download the checkpoint again"
        )
    return [
        Entry(name, tuple(tensor.shape), dtype_of(component, name, tensor.dtype, dtype))
        for name, tensor in iter_tensors(component)
    ]


def _config(component: Component, entries: list[Entry]) -> dict[str, Any]:
    """`config.json`; a Diffusers folder's own stays, but for the dtype that transformers loads by default."""
    is_ours = component.layout == "official"
    empty = empty_network(component)
    if isinstance(empty, ModelMixin):
        return json.loads(empty.to_json_string()) if is_ours else component.config
    largest = max(entries, key=lambda entry: entry.num_bytes)
    config = json.loads(empty.config.to_json_string()) if is_ours else dict(component.config)
    config.pop("torch_dtype", None)
    return config | {
        "architectures": [type(empty).__name__],
        "dtype": str(largest.dtype).removeprefix("torch."),
    }


def _json(name: str, content: dict[str, Any]) -> Output:
    return _bytes(name, (json.dumps(content, indent=2) + "\n").encode())


def _bytes(name: str, content: bytes) -> Output:
    return Output(name=name, write=lambda sink: sink.write(content), num_bytes=len(content))
