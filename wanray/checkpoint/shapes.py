"""Names and shapes of the tensors in weight files, read without torch and without the tensors' data."""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wanray.checkpoint.files import LEGACY_PICKLE, REMEDY, safetensors_header
from wanray.errors import ConfigError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorShapes:
    """What a network's weight files hold."""

    path: str
    """The file or folder that messages name."""
    shapes: dict[str, Shape]

    def of(self, name: str) -> Shape:
        """The shape of the tensor `name`.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.shapes:
            raise ConfigError(f"model.path is damaged: {self.path} has no tensor {name}; {REMEDY}")
        return self.shapes[name]

    def has(self, start: str) -> bool:
        """Whether a tensor's name starts so."""
        return any(name.startswith(start) for name in self.shapes)

    def count(self, start: str) -> int:
        """How many numbered parts follow `start`: 2 where there are `start.0.x` and `start.1.x`."""
        pattern = re.compile(rf"{re.escape(start)}\.(\d+)\.")
        return len({match[1] for match in map(pattern.match, self.shapes) if match})


def read_shapes(path: str, files: Iterable[str]) -> TensorShapes:
    """All tensors of `files`, which are safetensors or what `torch.save` writes.

    Raises:
        ConfigError: a file is neither.
    """
    shapes: dict[str, Shape] = {}
    for file in map(Path, files):
        try:
            shapes |= _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
        except (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError) as error:
            raise _unreadable(file, error) from None
        except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise _unreadable(file, error) from None
    return TensorShapes(path, shapes)


def _unreadable(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"model.path is damaged: {file} has no readable list of tensors ({error}); {REMEDY}")


def _safetensors(file: Path) -> dict[str, Shape]:
    return {name: tuple(tensor["shape"]) for name, tensor in safetensors_header(file).items()}


def _pickled(file: Path) -> dict[str, Shape]:
    with file.open("rb") as stream:
        if stream.read(1) == LEGACY_PICKLE:
            stream.seek(0)
            for _ in ("magic number", "protocol", "system"):
                _ShapeUnpickler(stream).load()
            return _shapes(stream)
    with zipfile.ZipFile(file) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(entry) as stream:
            return _shapes(stream)


def _shapes(stream: IO[bytes]) -> dict[str, Shape]:
    content = _ShapeUnpickler(stream).load()
    return {name: shape for name, shape in content.items() if isinstance(shape, tuple)}


class _ShapeUnpickler(pickle.Unpickler):
    """Reads each tensor as its shape; calls nothing that a pickle names but what is listed here."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if global_name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return lambda storage, offset, size, *rest: tuple(size)
        if global_name == "_rebuild_parameter":
            return lambda shape, *rest: shape
        return OrderedDict if global_name == "OrderedDict" else _nothing

    def persistent_load(self, pid: Any) -> None:
        """Storages are not read."""


def _nothing(*arguments: Any) -> None:
    """Stands for every other class."""
