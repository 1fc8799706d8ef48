"""The Diffusers layout: `model_index.json` and a folder for each part. Its config files tell everything."""

from pathlib import Path
from typing import Any

from wanray.checkpoint.component import Component
from wanray.checkpoint.contents import Checkpoint
from wanray.checkpoint.files import REMEDY, check_tokenizer, check_weights, read_json, shards
from wanray.checkpoint.identify import Found, Structure, unknown
from wanray.errors import ConfigError
from wanray.registry import Dims, Model

INDEX = "model_index.json"
TASKS_OF_PIPELINES = {
    "WanPipeline": frozenset({"t2v"}),
    "WanImageToVideoPipeline": frozenset({"i2v", "flf2v"}),
    "WanVACEPipeline": frozenset({"vace"}),
}
FOLDERS = {"single": "transformer", "high": "transformer", "low": "transformer_2"}
"""By the name of the expert."""


def inspect(folder: Path) -> Found:
    """What the config files tell about the model.

    Raises:
        ConfigError: they are missing or damaged, or of a pipeline that no model has.
    """
    index = read_json(folder / INDEX)
    pipeline = str(index.get("_class_name"))
    if pipeline not in TASKS_OF_PIPELINES:
        raise unknown(folder, pipeline)
    config = read_json(folder / "transformer" / "config.json")
    has_second = (folder / "transformer_2").is_dir()
    dims = _dims(folder, config)
    structure = Structure(
        num_experts=2 if has_second or index.get("boundary_ratio") is not None else 1,
        in_channels=dims.in_channels,
        has_image_encoder=config.get("image_dim") is not None,
        has_two_images=config.get("pos_embed_seq_len") is not None,
        has_vace=dims.num_vace_blocks > 0,
        has_token_timesteps=bool(index.get("expand_timesteps")),
    )
    return Found(
        label=pipeline,
        tasks=TASKS_OF_PIPELINES[pipeline],
        structure=structure,
        dims=dims,
        lacks="" if has_second else "transformer_2/",
    )


def open_parts(folder: Path, model: Model, dims: Dims) -> Checkpoint:
    """The checkpoint, complete.

    Raises:
        ConfigError: a part is missing or damaged.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    check_tokenizer(folder / "tokenizer")
    has_processor = model.has_image_encoder and (folder / "image_processor").is_dir()
    return Checkpoint(
        path=str(folder),
        layout="diffusers",
        model=model,
        dims=dims,
        boundary=_boundary(folder, model),
        flow_shift=_flow_shift(folder, scheduler),
        scheduler=scheduler,
        text_encoder=_component(folder, "text_encoder", "text_encoder"),
        transformers={name: _component(folder, FOLDERS[name], "transformer") for name in model.experts},
        vae=_component(folder, "vae", "vae"),
        image_encoder=_component(folder, "image_encoder", "image_encoder")
        if model.has_image_encoder
        else None,
        tokenizer=str(folder / "tokenizer"),
        image_processor=str(folder / "image_processor") if has_processor else None,
    )


STEMS = ("diffusion_pytorch_model", "model")
"""Names of weight files, as diffusers and transformers write them."""


def _component(folder: Path, name: str, role: str) -> Component:
    place = folder / name
    config = read_json(place / "config.json")
    # not those of a variant such as fp16, which may lie beside them
    stems = [place / f"{stem}.safetensors" for stem in STEMS]
    indexes = [file for stem in stems if (file := stem.with_name(f"{stem.name}.index.json")).is_file()]
    files = [file for index in indexes for file in shards(index)]
    files = files or [stem for stem in stems if stem.is_file()] or sorted(place.glob("*.safetensors"))
    check_weights(files, wanted=f"{place}/*.safetensors")
    return Component(
        role=role, layout="diffusers", path=str(place), files=tuple(map(str, files)), config=config
    )


def _dims(folder: Path, config: dict[str, Any]) -> Dims:
    try:
        return Dims(
            dim=config["num_attention_heads"] * config["attention_head_dim"],
            ffn_dim=config["ffn_dim"],
            num_heads=config["num_attention_heads"],
            num_layers=config["num_layers"],
            in_channels=config["in_channels"],
            num_vace_blocks=len(config.get("vace_layers") or ()),
        )
    except (KeyError, TypeError) as error:
        file = folder / "transformer" / "config.json"
        raise ConfigError(f"model.path is damaged: {file} has no usable {error.args[0]}; {REMEDY}") from None


def _boundary(folder: Path, model: Model) -> float | None:
    if len(model.experts) == 1:
        return None
    boundary = read_json(folder / INDEX).get("boundary_ratio")
    if not isinstance(boundary, int | float):
        raise ConfigError(
            f"model.path is damaged: {folder / INDEX} has boundary_ratio {boundary!r}, not a number; {REMEDY}"
        )
    return float(boundary)


def _flow_shift(folder: Path, scheduler: dict[str, Any]) -> float:
    shift = scheduler.get("flow_shift", 1.0)
    if not isinstance(shift, int | float):
        file = folder / "scheduler" / "scheduler_config.json"
        raise ConfigError(f"model.path is damaged: {file} has flow_shift {shift!r}, not a number; {REMEDY}")
    return float(shift)
