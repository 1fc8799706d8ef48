"""The config reference has every key once, as the schema has it, and refuses keys without a meaning."""

from dataclasses import dataclass, fields, is_dataclass
from typing import get_type_hints

import pytest
import yaml

from wanray.config import RenderConfig, load_config
from wanray.config.reference import ONE_OF_SEVERAL, config_reference, field_docstrings, sections

POOLS = ("extend", "encode", "denoise", "denoise_high", "denoise_low", "decode")


def keys_of_schema(schema=RenderConfig, prefix=""):
    hints = get_type_hints(schema)
    for item in fields(schema):
        if is_dataclass(hints[item.name]):
            yield from keys_of_schema(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def documented():
    """Every key with what is said of it; a key of several sections once for each."""
    for section in sections():
        for key in section.keys:
            parts = POOLS if ONE_OF_SEVERAL in key.name else ("",)
            yield from ((key.name.replace(ONE_OF_SEVERAL, part), key) for part in parts)


def test_every_key_is_there_once():
    found = [name for name, _ in documented()]
    assert sorted(found) == sorted(keys_of_schema())


def test_sections_are_in_the_order_of_the_file():
    names = [section.names[0] for section in sections()]
    top = [name for name in names if name and "." not in name]
    assert top == [item.name for item in fields(RenderConfig) if item.name in top]
    assert "pools.extend" in names


def test_defaults_are_the_schemas(tmp_path):
    """A config with every default written out is the config without any."""
    needed = {"manifest": "a.parquet", "output.url": "out", "model.path": "model"}
    path = tmp_path / "config.yaml"
    path.write_text("{}")
    given = [f"{name}={value}" for name, value in needed.items()]
    for name, key in documented():
        assert key.default != "required" or name in needed
        if name not in needed:
            text = key.default.strip("`")
            yaml.safe_load(text)
            given.append(f"{name}={text}")
    assert load_config(path, given) == load_config(path, given[: len(needed)])


def test_meanings_are_the_docstrings():
    said = dict(documented())
    assert said["faults.drain_s"].meaning.startswith("After SIGTERM: time to store the state")
    assert said["faults.drain_s"].type == "a number"
    assert said["defaults.seeds"].type == "a list of whole numbers such as [0, 1]"
    assert said["media.allow_schemes"].default.startswith("`[file, s3, ")
    page = config_reference()
    assert "| `output.save_latents` | true or false | `false` | Also write `latents.safetensors`" in page


@dataclass
class Silent:
    loud: int = 0
    """Says what it is."""
    silent: int = 0


def test_a_key_without_a_docstring_is_refused():
    assert field_docstrings(Silent) == {"loud": "Says what it is."}
    with pytest.raises(ValueError, match=r"^part\.silent has no docstring: write one under the field$"):
        list(sections(Silent, "part"))
