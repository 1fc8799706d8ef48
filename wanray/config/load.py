"""YAML file + `key=value` overrides -> RenderConfig. OmegaConf ends here; the rest gets dataclasses."""

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from wanray.config.schema import RenderConfig
from wanray.errors import ConfigError, printable

SCALAR_ERRORS = (ValueError, KeyError, AttributeError)
"""What PyYAML lets through from a scalar that is not what its tag says, such as `!!bool x` or `0b_`."""
COMMAND_LINE = "command line"
NO_MANIFEST = "none: requests come one by one"
"""What stands for the manifest of a job that reads none."""

TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list[str]: "a list of texts such as [s3, https]",
    list[int]: "a list of whole numbers such as [0, 1]",
    dict[str, float]: "a mapping of names to numbers",
    dict[str, str]: "a mapping of names to text",
    dict[str, Any]: "a mapping of names to values",
    dict[str, list[Any]]: "a mapping of columns to lists of values such as {steps: [20, 50]}",
}
"""How a message calls the types of the schema."""


def load_config(
    path: str | Path, overrides: list[str] | None = None, *, needs_manifest: bool = True
) -> RenderConfig:
    """Read a configuration file, apply `key=value` overrides and check it.

    Raises:
        ConfigError: naming key, value, place (file or command line) and remedy.
    """
    place = str(path)
    config = _merge(_schema(needs_manifest), _read_yaml(Path(path)), place)
    return _finished(_merge(config, _parse_overrides(overrides or []), COMMAND_LINE), overrides, place)


def make_config(values: dict[str, Any], place: str, *, needs_manifest: bool = True) -> RenderConfig:
    """A configuration from nested values; `place` is where they stand, for messages.

    Raises:
        ConfigError: as `load_config`.
    """
    return _finished(_merge(_schema(needs_manifest), OmegaConf.create(values), place), None, place)


def _schema(needs_manifest: bool) -> DictConfig:
    schema = OmegaConf.structured(RenderConfig)
    return schema if needs_manifest else _merge(schema, OmegaConf.create({"manifest": NO_MANIFEST}), "")


def _finished(config: DictConfig, overrides: list[str] | None, place: str) -> RenderConfig:
    try:
        _check_required(config)
        result = OmegaConf.to_object(config)
    except ConfigError as error:
        raise ConfigError(f"{error} ({place_of(str(error), overrides or [], place)})") from None
    except OmegaConfBaseException as error:
        key = str(error.full_key)
        where = place_of(key, overrides or [], place)
        raise ConfigError(
            f"{key} cannot be resolved: {_first_line(error)} ({where}): mind the ${{...}}"
        ) from None
    assert isinstance(result, RenderConfig)
    return result


def _read_yaml(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist: name a YAML file, then key=value") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"configuration {path} cannot be read ({type(error).__name__}): name a YAML file"
        ) from None
    except (YAMLError, OmegaConfBaseException, *SCALAR_ERRORS) as error:
        raise ConfigError(f"configuration {path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"configuration {path} must be a mapping of keys to values, got a list")
    return loaded


def _parse_overrides(overrides: list[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise ConfigError(f"override {override!r} must have the form key=value ({COMMAND_LINE})")
        try:
            OmegaConf.from_dotlist([override])
        except (YAMLError, OmegaConfBaseException, *SCALAR_ERRORS) as error:
            key, _, value = printable(override).partition("=")
            raise ConfigError(
                f"override {override!r} is not valid YAML after the =: {_one_line(error)} ({COMMAND_LINE}); "
                f"text with special characters needs quotes, such as \"{key}='{value}'\""
            ) from None
    return OmegaConf.from_dotlist(overrides)


def _merge(config: DictConfig, values: DictConfig, place: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(config, values)
    except ConfigKeyError as error:
        raise ConfigError(_unknown_key(error, place)) from None
    except (OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{_wrong_type(config, values) or _first_line(error)} ({place})") from None
    assert isinstance(merged, DictConfig)
    return merged


def _wrong_type(config: DictConfig, values: DictConfig) -> str | None:
    """What to say of the first value that does not fit `config`; OmegaConf does not always name it."""
    for key, hint, value in _leaves(OmegaConf.to_container(values), RenderConfig):
        alone = OmegaConf.create()
        OmegaConf.update(alone, key, value)
        try:
            OmegaConf.merge(config, alone)
        except (OmegaConfBaseException, TypeError):
            if hint is Any:
                return f"{key} was a list or a mapping, got {value!r}: text that holds a : needs quotes"
            return f"{key} must be {_type_words(hint)}, got {value!r}"
    return None


def _leaves(values: Any, schema: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, type, value) of all that is given; a section that is no mapping counts as one value."""
    hints = get_type_hints(schema)
    for name, value in ((name, value) for name, value in values.items() if name in hints):
        if is_dataclass(hints[name]) and isinstance(value, dict):
            yield from _leaves(value, hints[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hints[name], value


def _type_words(hint: Any) -> str:
    if is_dataclass(hint):
        return f"a section with keys such as {fields(hint)[0].name}"
    given = [part for part in get_args(hint) if part is not NoneType]
    return TYPES[given[0] if NoneType in get_args(hint) else hint]


def _unknown_key(error: ConfigKeyError, place: str) -> str:
    key = printable(str(error.full_key))
    known = [item.name for item in fields(error.object_type)] if error.object_type else []  # type: ignore[arg-type]
    parent, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {f'{parent}.' if parent else ''}{close[0]}?" if close else f"known: {', '.join(known)}"
    )
    return f"{key} is not a known key: {hint} ({place})"


def _check_required(config: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if config.manifest is None and config.defaults.prompt is None:
        missing.insert(0, "manifest")
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be set: add to the file or give {missing[0]}=...")


def place_of(message: str, overrides: list[str], place: str) -> str:
    """The command line, if a key that `message` names was overridden there; else the file `place`."""
    keys = {override.partition("=")[0] for override in overrides}
    first, *others = (word.strip(":,;") for word in message.split(" "))
    named = [first, *(word for word in others if "." in word)]
    related = (
        f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.") for key in keys for name in named
    )
    return COMMAND_LINE if any(related) else place


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
