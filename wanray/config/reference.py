"""The configuration as a page of documentation: every key with its type, its default and its meaning.

Reads the dataclasses of `schema` and the docstrings under their fields; knows no file to write to.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import MISSING

from wanray.config.load import TYPES
from wanray.config.schema import RenderConfig

ONE_OF_SEVERAL = "POOL"
"""Stands in a key for the name of any of several sections that have the same keys."""
YAML_END = "...\n"
"""What PyYAML puts behind a value that is no mapping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    """Dotted, from the top of the file."""
    type: str
    default: str
    meaning: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A mapping of the file; `names` are several where they have the same keys."""

    names: tuple[str, ...]
    meaning: str
    keys: tuple[Key, ...]


def sections(schema: type = RenderConfig, name: str = "") -> Iterator[Section]:
    """The sections below and with `name`, in the order of the source.

    Raises:
        ValueError: a key without a docstring.
    """
    hints, said = get_type_hints(schema), field_docstrings(schema)
    nested = {item.name: hints[item.name] for item in fields(schema) if is_dataclass(hints[item.name])}
    keys = [_key(item, hints[item.name], said, name) for item in fields(schema) if item.name not in nested]
    yield Section(names=(name,), meaning=_plain(schema.__doc__ or ""), keys=tuple(keys))
    for type_ in dict.fromkeys(nested.values()):
        alike = tuple(f"{name}.{part}".lstrip(".") for part, other in nested.items() if other is type_)
        first, *below = sections(type_, alike[0] if len(alike) == 1 else f"{name}.{ONE_OF_SEVERAL}")
        yield Section(names=alike, meaning=first.meaning, keys=first.keys)
        yield from below


def config_reference() -> str:
    """All sections as Markdown, a table each."""
    return "\n".join(_markdown(section) for section in sections())


def field_docstrings(schema: type) -> dict[str, str]:
    """Field -> the docstring under it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            assert isinstance(after.value, ast.Constant)
            found[statement.target.id] = _plain(str(after.value.value))
    return found


def _key(item: "Field[Any]", hint: Any, said: dict[str, str], section: str) -> Key:
    name = f"{section}.{item.name}".lstrip(".")
    if item.name not in said:
        raise ValueError(f"{name} has no docstring: write one under the field")
    return Key(name=name, type=_type(hint), default=_default(item), meaning=said[item.name])


def _type(hint: Any) -> str:
    """As messages about wrong values have it."""
    given = [part for part in get_args(hint) if part is not NoneType]
    return "any value" if hint is Any else TYPES[given[0] if NoneType in get_args(hint) else hint]


def _default(item: "Field[Any]") -> str:
    """As it would stand in the file."""
    value = item.default
    if item.default_factory is not NO_DEFAULT:
        value = item.default_factory()
    if value == MISSING:
        return "required"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{text.removesuffix(YAML_END).strip()}`"


def _plain(docstring: str) -> str:
    return " ".join(docstring.split())


def _markdown(section: Section) -> str:
    title = ", ".join(f"`{name}`" for name in section.names) if section.names[0] else "Top level"
    lines = [f"## {title}", "", section.meaning, ""]
    if section.keys:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(key) for key in section.keys]
        lines.append("")
    return "\n".join(lines)


def _row(key: Key) -> str:
    return f"| `{key.name}` | {_cell(key.type)} | {key.default} | {_cell(key.meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
