"""The registry for people and machines: tables, the card of one model, JSON. Facts are the registry's."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from wanray.registry import TASKS, Dims, Model

MEDIA = ("image", "last_image", "video", "mask", "reference_images")
"""The inputs worth a word in a table."""
TEXT_DIM = 4096
"""Width of the UMT5-XXL text encoder of all Wan models."""
IMAGE_DIM, IMAGE_TOKENS = 1280, 257
"""Width and number of features that the CLIP vision encoder gives for an image."""
FREQUENCY_DIM = 256
MASK_CHANNELS = 96
"""Channels of VACE's control video: inactive and reactive latents, and the mask's 8x8 cells."""


def model_json(model: Model) -> dict[str, Any]:
    """Everything the registry knows of a model, with what follows from it."""
    return asdict(model) | {
        "experts": model.experts,
        "inputs": {
            "required": {name: TASKS[name].required for name in model.tasks},
            "optional": {name: TASKS[name].optional for name in model.tasks},
        },
        "parameters_per_expert": num_parameters(model),
        "spatial_stride": model.spatial_stride,
        "latent_channels": model.latent_channels,
        "size_multiple_px": model.size_multiple_px,
    }


def models_table(models: list[Model]) -> RenderableType:
    """What each model is, then the official defaults of each; two tables fit where one would not."""
    what = _table("model", "tasks", "needs (may have)", "experts", "parameters", "VAE", "repository")
    defaults = _table("model", "size", "frames", "fps", "steps", "shift", "guidance", "boundary")
    for model in models:
        tasks, experts, vae = ", ".join(model.tasks), str(len(model.experts)), model.vae.removeprefix("wan")
        what.add_row(model.name, tasks, _needs(model), experts, _parameters(model), vae, model.repository)
        values = model.defaults
        numbers = (
            str(_frames(model)),
            f"{values.fps:g}",
            str(values.steps),
            _shift(model),
            _guidance(model),
        )
        boundary = "-" if model.boundary is None else f"{model.boundary:g}"
        defaults.add_row(model.name, f"{values.width}x{values.height}", *numbers, boundary)
    return Group(what, "", "Defaults, where neither row nor config says otherwise:", defaults)


def model_card(model: Model) -> RenderableType:
    """All about one model."""
    values, px = model.defaults, model.size_multiple_px
    facts = {
        "repository": model.repository,
        "experts": f"{' then '.join(model.experts)}{_switch(model)}",
        "parameters": _parameters(model),
        "VAE": f"{model.vae}: {model.latent_channels} channels, {model.spatial_stride} pixels per cell",
        "size": f"{values.width}x{values.height} unless told otherwise",
        "sizes": f"{', '.join(model.sizes)} officially; other multiples of {px} pixels render too",
        "frames": f"{_frames(model)} at {values.fps:g} fps; any 4n+1 for a video",
        "steps": f"{values.steps} with {values.solver}",
        "shift": _shift(model),
        "guidance": _guidance(model),
        "blank prompt": "allowed" if model.takes_blank_prompt else "not allowed",
        "negative": values.negative_prompt,
    }
    lines = [Text.assemble((f"{word:<14}", "bold"), fact) for word, fact in [*_tasks(model), *facts.items()]]
    return Group(Text(model.name, style="bold"), *lines)


def num_parameters(model: Model) -> int:
    """Weights of one of its transformers (of each expert, where there are two)."""
    dims, width = model.dims, model.dims.dim
    total = _linear(dims.in_channels * 4, width) + _linear(TEXT_DIM, width) + _linear(width, width)
    total += _linear(FREQUENCY_DIM, width) + _linear(width, width) + _linear(width, 6 * width)
    total += dims.num_layers * _block(dims, model.has_image_encoder)
    total += _linear(width, model.latent_channels * 4) + 2 * width
    if model.has_image_encoder:
        total += 2 * IMAGE_DIM + _linear(IMAGE_DIM, IMAGE_DIM) + _linear(IMAGE_DIM, width) + 2 * width
    if "flf2v" in model.tasks and model.has_image_encoder:
        total += 2 * IMAGE_TOKENS * IMAGE_DIM
    if dims.num_vace_blocks:
        total += _linear(MASK_CHANNELS * 4, width) + _linear(width, width)
        total += dims.num_vace_blocks * (_block(dims, False) + _linear(width, width))
    return total


def _block(dims: Dims, has_image_encoder: bool) -> int:
    width = dims.dim
    attention = 4 * _linear(width, width) + 2 * width
    image = 2 * _linear(width, width) + width if has_image_encoder else 0
    feed_forward = _linear(width, dims.ffn_dim) + _linear(dims.ffn_dim, width)
    norm_and_modulation = 2 * width + 6 * width
    return 2 * attention + image + feed_forward + norm_and_modulation


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _table(*columns: str) -> Table:
    headers = (Column(column, overflow="fold") for column in columns)
    return Table(*headers, box=None, pad_edge=False)


def _tasks(model: Model) -> list[tuple[str, str]]:
    lines = []
    for task in (TASKS[name] for name in model.tasks):
        prompt = "" if model.takes_blank_prompt and task.required else "prompt"
        needs = f"needs {', '.join(filter(None, (prompt, *task.required)))}"
        takes = f"; may have {', '.join(task.optional)}" if task.optional else ""
        lines.append((task.name, f"{task.summary}: {needs}{takes}"))
    return lines


def _needs(model: Model) -> str:
    """What every request needs; in brackets the media that some may have, or need for some tasks."""
    tasks = [TASKS[name] for name in model.tasks]
    needed = [column for column in tasks[0].required if all(column in task.required for task in tasks)]
    prompt = [] if model.takes_blank_prompt else ["prompt"]
    may = [column for column in MEDIA if column in model.inputs - {*needed}]
    return ", ".join(prompt + needed) + (f" ({', '.join(may)})" if may else "")


def _shift(model: Model) -> str:
    """Such as `5`, or `5; 3 at 832x480, 480x832`."""
    values = model.defaults
    by_area = [
        f"; {shift:g} at {', '.join(size for size in model.sizes if _area(size) == area)}"
        for area, shift in values.shift_by_area.items()
    ]
    return f"{values.shift:g}{''.join(by_area)}"


def _area(size: str) -> int:
    width, height = size.split("x")
    return int(width) * int(height)


def _guidance(model: Model) -> str:
    """The number of each expert by its name; one number where there is one expert."""
    guidance = model.defaults.guidance
    if len(model.experts) == 1:
        return f"{guidance.high:g}"
    return f"high {guidance.high:g} / low {guidance.low:g}"


def _switch(model: Model) -> str:
    if model.boundary is None:
        return ""
    return f", which takes over below timestep {model.boundary * 1000:g}"


def _parameters(model: Model) -> str:
    times = "2 x " if len(model.experts) == 2 else ""
    return f"{times}{num_parameters(model) / 1e9:.2f} B"


def _frames(model: Model) -> int:
    """Of a request with nothing but a prompt."""
    return TASKS[model.tasks[0]].max_frames or model.defaults.num_frames
