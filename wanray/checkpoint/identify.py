"""Which model of the registry a transformer is, by its structure; sizes and the folder's name decide ties."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wanray.checkpoint.conversion import read_record
from wanray.errors import ConfigError
from wanray.registry import MODELS, Dims, Model, get_model

NUM_LAYERS_14B = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """What tells models apart whatever their size."""

    num_experts: int
    in_channels: int
    has_image_encoder: bool
    """Whether the transformer attends to features of images."""
    has_two_images: bool
    """Whether these features have positions, for two images."""
    has_vace: bool
    has_token_timesteps: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a checkpoint's files tell, in either layout."""

    label: str
    """How the files call the model."""
    tasks: frozenset[str]
    """Tasks that this label stands for."""
    structure: Structure
    dims: Dims
    lacks: str = ""
    """The folder that a second expert would have, if there is none."""


def unknown(folder: Path, label: str) -> ConfigError:
    """The error for a model that no row of the registry describes."""
    return ConfigError(f"model.path {folder} holds a {label}: this version renders {', '.join(MODELS)}")


def structure_of(model: Model) -> Structure:
    """The structure of a registry row."""
    return Structure(
        num_experts=len(model.experts),
        in_channels=model.dims.in_channels,
        has_image_encoder=model.has_image_encoder,
        has_two_images=model.has_image_encoder and "flf2v" in model.tasks,
        has_vace=model.dims.num_vace_blocks > 0,
        has_token_timesteps=model.has_token_timesteps,
    )


def identify(folder: Path, found: Found, name: str | None) -> Model:
    """The model called `name` if the files can be its, or without a name the one that they are.

    Raises:
        ConfigError: the files are no model's, or another's than `name`'s.
    """
    detected = _detect(folder, found)
    model = get_model(name or detected.name)
    _check_experts(folder, found, detected, model)
    if structure_of(model) != structure_of(detected):
        raise ConfigError(
            f"model.path {folder} holds a {found.label} with {_traits(found.structure)}, as {detected.name} "
            f"has, which does not fit model {model.name}: check model.name"
        )
    if found.dims != model.dims and found.dims in [other.dims for other in MODELS.values()]:
        raise ConfigError(
            f"model.path {folder} has the sizes of {detected.name}, not of model {model.name}: "
            "check model.name"
        )
    return model


def _detect(folder: Path, found: Found) -> Model:
    fitting = [
        model
        for model in MODELS.values()
        if structure_of(model) == found.structure and found.tasks & set(model.tasks)
    ]
    if not fitting:
        raise unknown(folder, f"{found.label} with {_traits(found.structure)}")
    is_14b = found.dims.num_layers == NUM_LAYERS_14B
    sized = [model for model in fitting if (model.dims.num_layers == NUM_LAYERS_14B) == is_14b] or fitting
    converted = [model for model in sized if model.name == _converted_from(folder)]
    return (converted or _named(folder, sized) or sized)[0]


def _named(folder: Path, models: list[Model]) -> list[Model]:
    """Those of the models whose resolution stands in the folder's name, or in that of one above it.

    A hub's cache names a folder by its commit, and the repository further up.
    """
    for part in reversed(folder.parts):
        for resolution in ("480p", "720p"):
            if resolution in part.lower():
                return [model for model in models if model.name.endswith(resolution)]
    return []


def _converted_from(folder: Path) -> str:
    """The model that `wanray convert` noted, where it wrote the folder; a damaged note tells nothing."""
    with suppress(ConfigError):
        if record := read_record(folder):
            return record.origin.model
    return ""


def _check_experts(folder: Path, found: Found, detected: Model, model: Model) -> None:
    num_experts = 1 if found.lacks else found.structure.num_experts
    if num_experts != len(model.experts):
        have = f"two experts, as {detected.name} has" if num_experts == 2 else f"no {found.lacks} folder"
        raise ConfigError(
            f"model.path {folder} has {have}, which does not fit model {model.name}: check model.name"
        )


def _traits(structure: Structure) -> str:
    traits = [f"{structure.in_channels} input channels"]
    traits += ["two experts"] if structure.num_experts == 2 else []
    traits += ["image features"] if structure.has_image_encoder else []
    traits += ["positions for two images"] if structure.has_two_images else []
    traits += ["a control branch"] if structure.has_vace else []
    return " and ".join(traits)
