"""The official layout: one flat folder, or one more with a folder per expert.

The transformer's tensors tell sizes and structure, `config.json` its type and number of heads.
"""

from pathlib import Path
from typing import Any

from wanray.checkpoint.component import Component
from wanray.checkpoint.contents import SIDECAR, Checkpoint
from wanray.checkpoint.files import REMEDY, check_tokenizer, check_weights, read_json, shards
from wanray.checkpoint.identify import Found, Structure, unknown
from wanray.checkpoint.shapes import TensorShapes, read_shapes
from wanray.errors import ConfigError
from wanray.registry import Dims, Model

FOLDERS = {"single": "", "high": "high_noise_model", "low": "low_noise_model"}
"""By the name of the expert."""
TASKS_OF_TYPES = {name: frozenset({name}) for name in ("t2v", "i2v", "flf2v", "vace")} | {
    "ti2v": frozenset({"t2v"})
}
CLASSES = {None, "WanModel", "VaceWanModel"}
TRANSFORMER = "diffusion_pytorch_model"
TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16"
IMAGE_ENCODER = "models_clip_open-clip-xlm-roberta-large-vit-huge-14"
VAES = {"wan2.1": "Wan2.1_VAE", "wan2.2": "Wan2.2_VAE"}
HEAD_DIM = 128


def inspect(folder: Path) -> Found:
    """What `config.json` and the transformer's tensors tell about the model.

    Raises:
        ConfigError: they are missing or damaged, or of a type that no model has.
    """
    has_experts = (folder / FOLDERS["high"]).is_dir()
    config = read_json(folder / FOLDERS["high" if has_experts else "single"] / "config.json")
    kind, name = config.get("model_type"), config.get("_class_name")
    label = f"{name or 'model'} of type {kind}" if kind else f"{name}"
    if kind not in TASKS_OF_TYPES or name not in CLASSES:
        raise unknown(folder, label)
    component = _transformer(folder, "high" if has_experts else "single", {})
    shapes = read_shapes(component.path, component.files)
    dims = _dims(shapes, config)
    structure = Structure(
        num_experts=2 if has_experts else 1,
        in_channels=dims.in_channels,
        has_image_encoder=shapes.has("img_emb."),
        has_two_images=shapes.has("img_emb.emb_pos"),
        has_vace=dims.num_vace_blocks > 0,
        has_token_timesteps=kind == "ti2v",
    )
    lacks = "" if has_experts else f"{FOLDERS['high']}/"
    return Found(label=label, tasks=TASKS_OF_TYPES[kind], structure=structure, dims=dims, lacks=lacks)


def open_parts(folder: Path, model: Model, dims: Dims) -> Checkpoint:
    """The checkpoint, complete.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    sizes = read_json(folder / SIDECAR) if (folder / SIDECAR).is_file() else {}
    shift, tokenizer = model.defaults.shift, folder / "google" / "umt5-xxl"
    assert shift is not None, "every row of the registry has a shift"
    check_tokenizer(tokenizer)
    image_encoder = None
    if model.has_image_encoder:
        image_encoder = _component(folder, IMAGE_ENCODER, "image_encoder", sizes.get("clip", {}))
    return Checkpoint(
        path=str(folder),
        layout="official",
        model=model,
        dims=dims,
        boundary=model.boundary,
        flow_shift=shift,
        scheduler=_scheduler(shift),
        text_encoder=_component(folder, TEXT_ENCODER, "text_encoder", sizes.get("t5", {})),
        transformers={name: _transformer(folder, name, sizes.get("dit", {})) for name in model.experts},
        vae=_component(folder, VAES[model.vae], "vae", sizes.get("vae", {})),
        image_encoder=image_encoder,
        tokenizer=str(tokenizer),
        image_processor=None,
    )


def num_heads(shapes: TensorShapes, config: dict[str, Any]) -> int:
    """Attention heads, which no shape tells: `config.json` does, else they are 128 wide.

    Raises:
        ConfigError: that many do not divide the width.
    """
    dim = shapes.of("patch_embedding.weight")[0]
    heads = config.get("num_heads") or max(1, dim // HEAD_DIM)
    if not isinstance(heads, int) or dim % heads or dim // heads % 2:
        raise ConfigError(
            f"model.path is damaged: num_heads {heads!r} in config.json does not divide the width {dim} of "
            f"{shapes.path} into even parts; {REMEDY}"
        )
    return heads


def _scheduler(shift: float) -> dict[str, Any]:
    """What diffusers' pipelines for these models have; everything else is the class's default."""
    return {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": shift,
    }


def _transformer(folder: Path, expert: str, sizes: dict[str, Any]) -> Component:
    place = folder / FOLDERS[expert]
    config = read_json(place / "config.json") | sizes
    index = place / f"{TRANSFORMER}.safetensors.index.json"
    if not index.is_file():
        if not _find(place, TRANSFORMER) and any(place.glob(f"{TRANSFORMER}-*-of-*.safetensors")):
            raise ConfigError(f"model.path is incomplete: {index} is missing; {REMEDY}")
        return _component(place, TRANSFORMER, "transformer", config)
    files = shards(index)
    check_weights(files, wanted=str(index))
    return Component(
        role="transformer",
        layout="official",
        path=str(index),
        files=tuple(map(str, files)),
        config=config,
    )


def _component(folder: Path, stem: str, role: str, config: dict[str, Any]) -> Component:
    """The network in one file, which is what `torch.save` writes or the same as safetensors."""
    files = _find(folder, stem)
    check_weights(files, wanted=str(folder / f"{stem}.{'safetensors' if stem == TRANSFORMER else 'pth'}"))
    path = str(files[0])
    return Component(role=role, layout="official", path=path, files=(path,), config=config)


def _find(folder: Path, stem: str) -> list[Path]:
    names = [folder / f"{stem}{suffix}" for suffix in (".safetensors", ".pth")]
    return [name for name in names if name.is_file()][:1]


def _dims(shapes: TensorShapes, config: dict[str, Any]) -> Dims:
    dim, in_channels, *_ = shapes.of("patch_embedding.weight")
    return Dims(
        dim=dim,
        ffn_dim=shapes.of("blocks.0.ffn.0.weight")[0],
        num_heads=num_heads(shapes, config),
        num_layers=shapes.count("blocks"),
        in_channels=in_channels,
        num_vace_blocks=shapes.count("vace_blocks"),
    )
