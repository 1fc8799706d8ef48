"""Files of a checkpoint: JSON read, weight files found and checked to be whole, each problem told by name.

Knows file formats; knows nothing about models or layouts.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

from wanray.errors import ConfigError

REMEDY = "copy or download the checkpoint again"
POINTER = b"version https://git-lfs"
VOCABULARIES = ("tokenizer.json", "spiece.model")
"""Either will do."""
LEGACY_PICKLE = b"\x80"
"""First byte of what `torch.save` wrote before its format became a zip archive."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        ConfigError: the file is missing, unreadable or something else.
    """
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


def shards(index: Path) -> list[Path]:
    """The files that an index of sharded weights names."""
    names = read_json(index).get("weight_map", {})
    if not isinstance(names, dict) or not names:
        raise ConfigError(f"model.path is damaged: {index} has no weight_map; {REMEDY}")
    return [index.parent / name for name in sorted(set(names.values()))]


def check_weights(files: list[Path], wanted: str) -> None:
    """Refuse weight files that are missing (`wanted` where there are none), cut or mere pointers."""
    missing = [str(file) for file in files if not file.is_file()]
    if not files or missing:
        name = missing[0] if missing else wanted
        raise ConfigError(f"model.path is incomplete: {name} is missing; {REMEDY}")
    for file in files:
        kind, is_whole = _KINDS.get(file.suffix, _KINDS[".pth"])
        if _is_pointer(file):
            raise _pointer(file, kind)
        if not is_whole(file):
            raise ConfigError(f"model.path is damaged: {_sized(file)} is no whole {kind}; {REMEDY}")


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without vocabulary.

    Without one transformers makes up an empty one, and every prompt means the same.
    """
    found = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    if not found:
        raise ConfigError(f"model.path is incomplete: {folder / VOCABULARIES[0]} is missing; {REMEDY}")
    for file in found:
        if _is_pointer(file):
            raise _pointer(file, "vocabulary")


def safetensors_header(file: Path) -> dict[str, Any]:
    """Name -> `dtype`, `shape` and `data_offsets` of each tensor.

    Raises:
        ValueError: that is no safetensors header.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length + 8 > file.stat().st_size:
            raise ValueError("shorter than its header")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("no table of tensors")
    header.pop("__metadata__", None)
    return header


def _is_whole_safetensors(file: Path) -> bool:
    try:
        ends = [tensor["data_offsets"][1] for tensor in safetensors_header(file).values()]
        with file.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
        return file.stat().st_size == start + max(ends, default=0)
    except (ValueError, LookupError, TypeError):
        return False


def _is_whole_pickle(file: Path) -> bool:
    """A zip archive ends with its directory, so a readable one is whole; older pickles tell no length."""
    with file.open("rb") as stream:
        if stream.read(1) == LEGACY_PICKLE:
            return True
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(POINTER)) == POINTER


def _pointer(file: Path, kind: str) -> ConfigError:
    return ConfigError(
        f"model.path is damaged: {_sized(file)} is no whole {kind} but a git-LFS pointer to one; "
        "run `git lfs pull` or download the checkpoint again"
    )


def _sized(file: Path) -> str:
    return f"{file} ({file.stat().st_size} bytes)"


_KINDS = {
    ".safetensors": ("safetensors file", _is_whole_safetensors),
    ".pth": ("PyTorch file", _is_whole_pickle),
}
