"""What an opened checkpoint is: model, sizes, scheduler and the place of each network."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanray.checkpoint.component import Component
from wanray.registry import Dims, Model

SIDECAR = "wanray_tiny.json"
"""Sizes that official code has as constants; only small checkpoints for tests have this file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint of a model that the registry knows."""

    path: str
    """Absolute folder."""
    layout: str
    """`diffusers` or `official`."""
    model: Model
    dims: Dims
    """Of this checkpoint's transformer; tiny ones differ from the registry's."""
    boundary: float | None
    """Timestep / 1000 of the expert switch: stored with Diffusers folders, else the registry's."""
    flow_shift: float
    """Stored with the scheduler of Diffusers folders, else the model's default; only
    `numerics.mode=diffusers` uses it."""
    scheduler: dict[str, Any]
    """Configuration for diffusers' scheduler classes, which only `numerics.mode=diffusers` uses."""
    text_encoder: Component
    vae: Component
    image_encoder: Component | None
    """Where the model has one."""
    transformers: dict[str, Component]
    """By the name of the expert, as in `model.experts`."""
    tokenizer: str
    """Folder."""
    image_processor: str | None
    """Folder of the image encoder's preprocessing; official checkpoints have none."""

    def switch(self, mode: str) -> float | None:
        """Timestep / 1000 of the expert switch: the official one, or under `diffusers` the checkpoint's."""
        return self.boundary if mode == "diffusers" else self.model.boundary

    def components(self) -> list[Component]:
        """All networks."""
        encoders = [self.text_encoder, self.image_encoder]
        return [*(part for part in encoders if part), *self.transformers.values(), self.vae]

    def files(self) -> list[Path]:
        """All files that decide pixels, in the order of their names within the checkpoint."""
        paths = self._diffusers_files() if self.layout == "diffusers" else self._official_files()
        return sorted(set(paths), key=lambda path: path.relative_to(self.path).as_posix())

    def _diffusers_files(self) -> Iterator[Path]:
        folders = [component.path for component in self.components()]
        folders += [self.tokenizer, f"{self.path}/scheduler", self.image_processor or self.tokenizer]
        yield Path(self.path) / "model_index.json"
        for folder in folders:
            yield from _files_in(folder)

    def _official_files(self) -> Iterator[Path]:
        yield from _files_in(self.tokenizer)
        for component in self.components():
            yield from map(Path, component.files)
        for component in self.transformers.values():
            yield Path(component.files[0]).parent / "config.json"
        if (sidecar := Path(self.path) / SIDECAR).is_file():
            yield sidecar


def _files_in(folder: str) -> list[Path]:
    return [file for file in Path(folder).iterdir() if file.is_file()]
