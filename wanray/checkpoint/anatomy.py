"""The parts of a checkpoint folder as they lie there, each looked at on its own: for who wants all problems.

`open_checkpoint` refuses a folder with its first problem; here nothing is refused and everything is told.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wanray.checkpoint import diffusers, official
from wanray.checkpoint.files import (
    REMEDY,
    check_tokenizer,
    check_weights,
    read_json,
    safetensors_header,
    shards,
)
from wanray.checkpoint.shapes import read_shapes
from wanray.errors import ConfigError
from wanray.registry import Model

DTYPES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
}
"""As safetensors and as pickles of torch call them."""


@dataclass(kw_only=True, slots=True)
class Part:
    """A network, or files beside the networks."""

    name: str
    files: list[Path] = field(default_factory=list)
    num_bytes: int = 0
    num_tensors: int = 0
    num_parameters: int = 0
    dtypes: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    loaded_s: float | None = None
    """How long loading it took, where that was tried."""

    def try_to(self, act: Callable[[], object]) -> bool:
        """Whether `act` succeeds; what it raises on purpose becomes a problem."""
        try:
            act()
        except (ConfigError, OSError) as error:
            self.problems.append(plain(error))
            return False
        return True


def plain(error: Exception) -> str:
    """The message without the key that only a configuration has."""
    return str(error).removeprefix("model.path is ").removeprefix("model.path ")


def layout_of(folder: Path) -> str:
    """`diffusers`, `official`, or nothing where neither has left a trace."""
    if (folder / diffusers.INDEX).is_file() or (folder / "transformer").is_dir():
        return "diffusers"
    traces = ["config.json", official.FOLDERS["high"], official.FOLDERS["low"]]
    traces += [f"{official.TEXT_ENCODER}.pth", *(f"{stem}.pth" for stem in official.VAES.values())]
    return "official" if any((folder / trace).exists() for trace in traces) else ""


def parts_of(folder: Path, layout: str, model: Model | None) -> list[Part]:
    """All parts that `model` needs; without a model those that every one needs, and those that are there."""
    parts = _diffusers_parts if layout == "diffusers" else _official_parts
    return list(parts(folder, model))


def _diffusers_parts(folder: Path, model: Model | None) -> Iterator[Part]:
    index = _json_part("index", folder / diffusers.INDEX)
    yield index
    yield _json_part("scheduler", folder / "scheduler" / "scheduler_config.json")
    yield _tokenizer_part(folder / "tokenizer")
    needed = {"text_encoder", "transformer", "vae"}
    needed |= {"transformer_2"} if model and len(model.experts) == 2 else set()
    needed |= {"image_encoder"} if model and model.has_image_encoder else set()
    if model is None and not index.problems:
        content = read_json(folder / diffusers.INDEX)
        needed |= {name for name, value in content.items() if isinstance(value, list) and value[0]}
    for name in ("text_encoder", "image_encoder", "transformer", "transformer_2", "vae"):
        if name in needed or (model is None and (folder / name).is_dir()):
            part = Part(name=name)
            part.try_to(lambda place=folder / name: read_json(place / "config.json"))
            indexes = sorted((folder / name).glob("*.safetensors.index.json"))
            files = sorted((folder / name).glob("*.safetensors"))
            yield _weights(part, indexes, files, wanted=f"{folder / name}/*.safetensors")


def _official_parts(folder: Path, model: Model | None) -> Iterator[Part]:
    yield _tokenizer_part(folder / "google" / "umt5-xxl")
    yield _single_file("text_encoder", folder, official.TEXT_ENCODER)
    if (model and model.has_image_encoder) or (model is None and _found(folder, official.IMAGE_ENCODER)):
        yield _single_file("image_encoder", folder, official.IMAGE_ENCODER)
    present = [stem for stem in official.VAES.values() if _found(folder, stem)]
    vae = official.VAES[model.vae] if model else (*present, *official.VAES.values())[0]
    yield _single_file("vae", folder, vae)
    has_two = any((folder / official.FOLDERS[expert]).is_dir() for expert in ("high", "low"))
    for expert in model.experts if model else (("high", "low") if has_two else ("single",)):
        place = folder / official.FOLDERS[expert]
        part = Part(name="transformer" if expert == "single" else f"transformer ({expert})")
        part.try_to(lambda place=place: read_json(place / "config.json"))
        indexes = sorted(place.glob(f"{official.TRANSFORMER}.safetensors.index.json"))
        files = sorted(place.glob(f"{official.TRANSFORMER}*.safetensors"))
        yield _weights(part, indexes, files, wanted=f"{place / official.TRANSFORMER}.safetensors")


def _json_part(name: str, file: Path) -> Part:
    part = Part(name=name, files=[file] if file.is_file() else [])
    part.try_to(lambda: read_json(file))
    return _sized(part)


def _tokenizer_part(folder: Path) -> Part:
    part = Part(name="tokenizer", files=sorted(file for file in folder.glob("*") if file.is_file()))
    part.try_to(lambda: check_tokenizer(folder))
    return _sized(part)


def _single_file(name: str, folder: Path, stem: str) -> Part:
    return _weights(Part(name=name), [], _found(folder, stem), wanted=str(folder / f"{stem}.pth"))


def _found(folder: Path, stem: str) -> list[Path]:
    return [file for suffix in (".safetensors", ".pth") if (file := folder / f"{stem}{suffix}").is_file()][:1]


def _weights(part: Part, indexes: list[Path], files: list[Path], wanted: str) -> Part:
    """Look at every weight file; an index says which there have to be."""
    if indexes:
        files = []
        for index in indexes:
            part.try_to(lambda index=index: files.extend(shards(index)))
    elif not files:
        part.try_to(lambda: check_weights([], wanted))
    elif any("-of-" in file.name for file in files):
        part.problems.append(f"incomplete: the index of {files[0]} is missing; {REMEDY}")
    part.files = [file for file in files if file.is_file()]
    for file in files:
        if part.try_to(lambda file=file: check_weights([file], wanted)):
            part.try_to(lambda file=file: _count(part, file))
    if indexes and not part.problems:
        part.try_to(lambda: _check_index(indexes))
    return _sized(part)


def _count(part: Part, file: Path) -> None:
    shapes = read_shapes(str(file), [str(file)]).shapes
    part.num_tensors += len(shapes)
    part.num_parameters += sum(map(math.prod, shapes.values()))
    part.dtypes |= _dtypes(file)


def _dtypes(file: Path) -> set[str]:
    if file.suffix == ".safetensors":
        names = {str(tensor["dtype"]) for tensor in safetensors_header(file).values()}
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        names = {str(argument).split()[-1] for _, argument, _ in pickletools.genops(pickled) if argument}
        names = {name for name in names if name.endswith("Storage")}
    else:
        return {"?"}
    return {DTYPES.get(name, name) for name in names}


def _check_index(indexes: list[Path]) -> None:
    """Refuse an index that names tensors which its files lack."""
    for index in indexes:
        places: dict[str, str] = read_json(index)["weight_map"]
        held = {name: file.name for file in shards(index) for name in safetensors_header(file)}
        if astray := sorted(name for name, file in places.items() if held.get(name) != file):
            raise ConfigError(
                f"damaged: {index} places {astray[0]} in {places[astray[0]]}, which lacks it "
                f"({len(astray)} such tensors); copy or download the checkpoint again"
            )


def _sized(part: Part) -> Part:
    part.num_bytes = sum(file.stat().st_size for file in part.files)
    return part
