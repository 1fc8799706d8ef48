"""Whether a folder holds a Qwen, and of which kind; opens no weights, needs no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanray.errors import ConfigError

REMEDY = "name the folder of an Instruct checkpoint of Qwen2, Qwen2.5 or Qwen3, or of Qwen2-VL or Qwen2.5-VL"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Either is enough."""
TEXT = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")
EYES = ("qwen2_vl", "qwen2_5_vl")


@dataclass(frozen=True, kw_only=True, slots=True)
class QwenFolder:
    """What a checkpoint says of itself."""

    path: str
    model_type: str
    has_eyes: bool
    """Whether it takes images."""


def read_folder(path: str) -> QwenFolder:
    """What lies in the folder `path`.

    Raises:
        ConfigError: no such folder, no Qwen, or some of its files are missing.
    """
    config = _read(path, "config.json")
    model_type = str(config.get("model_type"))
    if model_type not in TEXT + EYES:
        raise ConfigError(
            f"{path} holds model_type {model_type}, which is no Qwen that wanray knows: {REMEDY}"
        )
    folder = QwenFolder(path=path, model_type=model_type, has_eyes=model_type in EYES)
    if missing := _missing(folder):
        raise ConfigError(f"{path} lacks {', '.join(missing)}: copy the whole checkpoint again")
    return folder


def _missing(folder: QwenFolder) -> list[str]:
    root = Path(folder.path)
    weights = {WEIGHTS}
    if (root / INDEX).exists():
        weights = set(_read(folder.path, INDEX).get("weight_map", {}).values())
    needed = [*sorted(weights), "tokenizer_config.json", *["preprocessor_config.json"] * folder.has_eyes]
    missing = [name for name in needed if not (root / name).exists()]
    if not any(all((root / name).exists() for name in names) for names in TOKENIZERS):
        missing.append("tokenizer.json")
    return missing + ["a chat template"] * (not _has_template(root))


def _has_template(root: Path) -> bool:
    if (root / "chat_template.jinja").exists() or not (root / "tokenizer_config.json").exists():
        return True
    return "chat_template" in _read(str(root), "tokenizer_config.json")


def _read(path: str, name: str) -> dict[str, Any]:
    """A JSON file of the folder."""
    try:
        return json.loads((Path(path) / name).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} has no {name}: {REMEDY}") from error
    except ValueError as error:
        raise ConfigError(f"{path}/{name} is no JSON ({error}): copy the checkpoint again") from error
