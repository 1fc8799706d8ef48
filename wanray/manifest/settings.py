"""What the config says about rows: `defaults` that fill them and `sweep` that multiplies them.

Both go through the columns' types and rules, so a value that is right in a row is right in a config.
"""

import difflib
import itertools
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from wanray.config.schema import DefaultsConfig
from wanray.errors import ConfigError
from wanray.manifest.arrays import array_of, flat
from wanray.manifest.columns import normalise_table
from wanray.manifest.validate import split_size, validate
from wanray.registry import Defaults, Model

SWEEPABLE = (
    "seed",
    "steps",
    "shift",
    "guidance",
    "solver",
    "num_frames",
    "fps",
    "size",
    "width",
    "height",
    "max_area",
    "context_scale",
    "negative_prompt",
    "prompt",
)
LABEL = "label"
"""Column of `combinations` that says what each one varies."""


def check_defaults(defaults: DefaultsConfig, model: Model) -> None:
    """Raise ConfigError with every value of `defaults` that breaks a rule of the manifest."""
    _check("defaults", _given(defaults), model)


def check_sweep(sweep: dict[str, list[Any]], model: Model) -> None:
    """Raise ConfigError with every column and value of `sweep` that cannot be used."""
    for name, values in sweep.items():
        if name not in SWEEPABLE:
            near = difflib.get_close_matches(name, SWEEPABLE, 1)
            remedy = f"did you mean sweep.{near[0]}?" if near else f"use {', '.join(SWEEPABLE)}"
            raise ConfigError(f"sweep.{name} is not a column that can be swept: {remedy}")
        if not isinstance(values, list) or not values or None in values:
            raise ConfigError(
                f"sweep.{name} must be a list of at least one value and no null, got {values!r}"
            )
    for name in ("width", "height"):
        if {"size", name} <= set(sweep):
            raise ConfigError(f"sweep.size excludes sweep.{name}: keep one way")
    for name, values in sweep.items():
        _check("sweep", pa.table({name: array_of(values)}), model)


@dataclass(frozen=True, slots=True)
class JobValues:
    """What rows get that leave something out."""

    values: dict[str, Any]
    """Column -> value; size is width and height."""
    given: frozenset[str]
    """The columns that the config sets."""
    shift_by_area: dict[int, float]
    """Asked-for area in pixels -> shift, where the config sets none."""


def job_values(official: Defaults, defaults: DefaultsConfig) -> JobValues:
    """The config's values, else the model's."""
    values = asdict(official) | dict.fromkeys(("prompt", "seed", "seeds", "tags", "max_area"))
    values |= {"priority": 0, "context_scale": 1.0, "video_sampling": "even"}
    table, _ = normalise_table(_given(defaults))
    given = _split(table).to_pylist()[0]
    by_area = {} if "shift" in given else official.shift_by_area
    return JobValues(values | given, frozenset(given), by_area)


def combinations(sweep: dict[str, list[Any]]) -> pa.Table:
    """The cross product of `sweep`: one row each, with the columns it sets and its label."""
    rows = list(itertools.product(*sweep.values()))
    labels = [
        _label(sweep, row) for row in itertools.product(*(range(len(values)) for values in sweep.values()))
    ]
    raw = {name: array_of([row[index] for row in rows]) for index, name in enumerate(sweep)}
    table, _ = normalise_table(pa.table(raw | {LABEL: pa.array(labels, pa.string())}))
    table = _split_guidance(_split(table)).append_column(LABEL, pa.array(labels, pa.string()))
    if {"width", "height"} & set(table.column_names) and "max_area" not in sweep:
        # else the area that a row has would hide the size that is swept
        table = table.append_column("max_area", pa.nulls(len(table), pa.int64()))
    return table


def _given(defaults: DefaultsConfig) -> pa.Table:
    """The config's defaults as a manifest of one row."""
    values = {item.name: getattr(defaults, item.name) for item in fields(defaults)}
    return pa.table({name: array_of([value]) for name, value in values.items()})


def _check(section: str, raw: pa.Table, model: Model) -> None:
    table, problems = normalise_table(raw)
    problems += validate(table, model)
    if problems:
        raise ConfigError("; ".join(f"{section}.{item.column} {item.message}" for item in problems))


def _split(table: pa.Table) -> pa.Table:
    """`table` without what is not given, and with width and height instead of size."""
    table = table.select([name for name in table.column_names if table[name].null_count < len(table)])
    if "size" not in table.column_names:
        return table
    width, height = split_size(flat(table["size"]))
    return table.drop(["size"]).append_column("width", width).append_column("height", height)


def _split_guidance(table: pa.Table) -> pa.Table:
    """`table` with a column for each expert instead of guidance."""
    if "guidance" not in table.column_names:
        return table
    for index, expert in enumerate(("high", "low")):
        table = table.append_column(f"guidance_{expert}", flat(table["guidance"]).field(index))
    return table.drop(["guidance"])


def _label(sweep: dict[str, list[Any]], choice: tuple[int, ...]) -> str:
    """Such as `steps=20,shift=5`: columns with more than one value; prompts by position."""
    parts = [
        f"{name}={index if 'prompt' in name else _short(values[index])}"
        for (name, values), index in zip(sweep.items(), choice, strict=True)
        if len(values) > 1
    ]
    return ",".join(parts)


def _short(value: Any) -> str:
    return f"{value['high']}/{value['low']}" if isinstance(value, dict) else str(value)
