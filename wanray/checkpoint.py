"""What a checkpoint folder holds, read without torch: model, sizes, scheduler shift, completeness.

Loads no weights. Knows the Diffusers layout: `model_index.json` and a folder per component.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanray.errors import ConfigError
from wanray.registry import MODELS, Dims, Model, get_model

REMEDY = "copy or download the checkpoint again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint of a model that the registry knows."""

    path: str
    """Absolute folder."""
    model: Model
    dims: Dims
    """Of this checkpoint's transformer; tiny ones differ from the registry's."""
    boundary: float | None
    """The checkpoint's own `boundary_ratio`; None for one expert."""
    flow_shift: float
    """The shift stored with the checkpoint's scheduler; only `numerics.mode=diffusers` uses it."""

    def switch(self, mode: str) -> float | None:
        """Timestep / 1000 of the expert switch: the official one, or under `diffusers` the checkpoint's."""
        return self.boundary if mode == "diffusers" else self.model.boundary

    def transformer_folder(self, expert: str) -> str:
        """Folder name of an expert: Diffusers calls the high-noise one `transformer`."""
        return "transformer_2" if expert == "low" else "transformer"


def open_checkpoint(path: str, name: str | None = None) -> Checkpoint:
    """Inspect the folder `path`; `name` overrides what the files tell.

    Raises:
        ConfigError: the folder is missing, of another layout, incomplete or of an unknown model.
    """
    folder = Path(path).absolute()
    index = _read_index(folder)
    transformer = _read_json(folder / "transformer" / "config.json")
    detected = _detect(folder, index, transformer)
    model = get_model(name or detected)
    if (len(model.experts) == 2) != ((folder / "transformer_2").is_dir()):
        have = "two experts" if (folder / "transformer_2").is_dir() else "no transformer_2/ folder"
        raise ConfigError(
            f"model.path {folder} has {have}, which does not fit model {model.name}: check model.name"
        )
    dims = _dims(folder, transformer)
    if dims != model.dims and dims in [other.dims for other in MODELS.values()]:
        raise ConfigError(
            f"model.path {folder} has the sizes of {detected}, not of model {model.name}: check model.name"
        )
    parts = ["text_encoder", "transformer", "vae"] + (["transformer_2"] if len(model.experts) == 2 else [])
    for part in parts:
        _check_weights(folder / part)
    # without a vocabulary transformers makes up an empty one, and every prompt means the same
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise ConfigError(f"model.path {folder} is incomplete: tokenizer/tokenizer.json is missing; {REMEDY}")
    return Checkpoint(
        path=str(folder),
        model=model,
        dims=dims,
        boundary=index.get("boundary_ratio") if len(model.experts) == 2 else None,
        flow_shift=_flow_shift(folder),
    )


def _read_index(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(
            f"model.path {folder} is no local folder: name a checkpoint folder in Diffusers layout"
        )
    if not (folder / "model_index.json").is_file():
        raise ConfigError(
            f"model.path {folder} has no model_index.json: name a checkpoint folder in Diffusers layout"
        )
    return _read_json(folder / "model_index.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"model.path is incomplete: {path} is missing; {REMEDY}") from None
    except OSError as error:
        raise ConfigError(
            f"model.path is damaged: {path} cannot be read ({error.strerror}); {REMEDY}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"model.path is damaged: {path} is not JSON ({error}); {REMEDY}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"model.path is damaged: {path} is not a JSON object; {REMEDY}")
    return content


def _detect(folder: Path, index: dict[str, Any], transformer: dict[str, Any]) -> str:
    pipeline, channels = index.get("_class_name"), transformer.get("in_channels")
    if pipeline != "WanPipeline" or channels != 16 or index.get("expand_timesteps"):
        raise ConfigError(
            f"model.path {folder} holds a {pipeline} with {channels} input channels: "
            "this version renders the text-to-video models t2v-1.3b, t2v-14b and t2v-a14b"
        )
    if (folder / "transformer_2").is_dir() or index.get("boundary_ratio") is not None:
        return "t2v-a14b"
    return "t2v-14b" if transformer.get("num_layers") == 40 else "t2v-1.3b"


def _dims(folder: Path, transformer: dict[str, Any]) -> Dims:
    try:
        return Dims(
            dim=transformer["num_attention_heads"] * transformer["attention_head_dim"],
            ffn_dim=transformer["ffn_dim"],
            num_heads=transformer["num_attention_heads"],
            num_layers=transformer["num_layers"],
            in_channels=transformer["in_channels"],
        )
    except (KeyError, TypeError) as error:
        file = folder / "transformer" / "config.json"
        raise ConfigError(f"model.path is damaged: {file} has no usable {error.args[0]}; {REMEDY}") from None


def _flow_shift(folder: Path) -> float:
    file = folder / "scheduler" / "scheduler_config.json"
    shift = _read_json(file).get("flow_shift", 1.0)
    if not isinstance(shift, int | float):
        raise ConfigError(f"model.path is damaged: {file} has flow_shift {shift!r}, not a number; {REMEDY}")
    return float(shift)


def _check_weights(folder: Path) -> None:
    _read_json(folder / "config.json")
    shards = [
        folder / name
        for index in sorted(folder.glob("*.safetensors.index.json"))
        for name in sorted(set(_read_json(index).get("weight_map", {}).values()))
    ] or sorted(folder.glob("*.safetensors"))
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if not shards or missing:
        name = missing[0] if missing else f"{folder}/*.safetensors"
        raise ConfigError(f"model.path is incomplete: {name} is missing; {REMEDY}")
    for shard in shards:
        if not _is_whole(shard):
            size = shard.stat().st_size
            raise ConfigError(
                f"model.path is damaged: {shard} ({size} bytes) is no whole safetensors file; {REMEDY}"
            )


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header tells; cut downloads and LFS pointers are not."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length + 8 > file.stat().st_size:
            return False
        try:
            header = json.loads(stream.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, LookupError, TypeError):
            return False
    return file.stat().st_size == 8 + length + max(ends, default=0)
