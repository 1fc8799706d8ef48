"""YAML file + `key=value` overrides -> RenderConfig. OmegaConf ends here; the rest gets dataclasses."""

import difflib
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from wanray.config.schema import RenderConfig
from wanray.errors import ConfigError

COMMAND_LINE = "command line"


def load_config(path: str | Path, overrides: list[str] | None = None) -> RenderConfig:
    """Read a configuration file, apply `key=value` overrides and check it.

    Raises:
        ConfigError: naming key, value, place (file or command line) and remedy.
    """
    place = str(path)
    config = _merge(OmegaConf.structured(RenderConfig), _read_yaml(Path(path)), place)
    config = _merge(config, _parse_overrides(overrides or []), COMMAND_LINE)
    _check_required(config, place)
    try:
        result = OmegaConf.to_object(config)
    except ConfigError as error:
        raise ConfigError(f"{error} ({_place_of(str(error), overrides or [], place)})") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {_first_line(error)} ({place})") from None
    assert isinstance(result, RenderConfig)
    return result


def _read_yaml(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist: check the path") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"configuration {path} cannot be read ({type(error).__name__}): name a YAML file"
        ) from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"configuration {path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"configuration {path} must be a mapping of keys to values, got a list")
    return loaded


def _parse_overrides(overrides: list[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise ConfigError(f"override {override!r} must have the form key=value ({COMMAND_LINE})")
    try:
        return OmegaConf.from_dotlist(overrides)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"overrides {overrides} cannot be read: {_one_line(error)} ({COMMAND_LINE})"
        ) from None


def _merge(config: DictConfig, values: DictConfig, place: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(config, values)
    except ConfigKeyError as error:
        raise ConfigError(_unknown_key(error, place)) from None
    except OmegaConfBaseException as error:
        key = error.full_key or "/".join(str(key) for key in values)
        raise ConfigError(f"{key}: {_first_line(error)} ({place})") from None
    assert isinstance(merged, DictConfig)
    return merged


def _unknown_key(error: ConfigKeyError, place: str) -> str:
    key = str(error.full_key)
    known = [item.name for item in fields(error.object_type)] if error.object_type else []  # type: ignore[arg-type]
    parent, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {f'{parent}.' if parent else ''}{close[0]}?" if close else f"known: {', '.join(known)}"
    )
    return f"{key} is not a known key: {hint} ({place})"


def _check_required(config: DictConfig, place: str) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} must be set: add to {place} or give {missing[0]}=... on the command line"
        )


def _place_of(message: str, overrides: list[str], place: str) -> str:
    """The command line, if the key that `message` starts with was overridden there; else the file."""
    keys = [override.partition("=")[0] for override in overrides]
    named = message.split(" ")[0].replace("pools.*.", "")
    return COMMAND_LINE if any(key == named or key.endswith(f".{named}") for key in keys) else place


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
