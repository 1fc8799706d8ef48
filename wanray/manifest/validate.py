"""The rules of the manifest: ranges, and what a model and its task allow. Media are opened in `media`.

Every rule is one vectorised expression over a column; a null breaks none of them.
"""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.manifest.columns import MEDIA, MEDIA_COLUMNS
from wanray.manifest.problems import Problem, broken
from wanray.manifest.rows import column, rows_where
from wanray.media import shown
from wanray.registry import Model
from wanray.schedule import SOLVERS

INPUT_COLUMNS = (*MEDIA_COLUMNS, "key_frames", "video_sampling", "lora", "context_scale", "max_area")
"""Columns that only some models take."""

MAX_FRAMES = 4 * 1023 + 1
"""The transformers know 1024 positions in time."""

SAMPLINGS = ("even", "cut")
"""Values of `video_sampling`: all over the source as the official code does, or from its start at `fps`."""


Check = Callable[[pa.Array], pa.Array]
"""From a column's values to a boolean each: true where the rule is broken."""


def _identity(array: pa.Array) -> pa.Array:
    return array


def _path_of(array: pa.Array) -> pa.Array:
    """What a user wrote: of a medium its path, of a list its length."""
    if pa.types.is_list(array.type):
        return pc.list_value_length(array)
    if array.type != MEDIA:
        return array
    return pa.array([path and shown(path) for path in pc.struct_field(array, "path").to_pylist()])


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one column; shows: what the message says was got."""

    column: str
    breaks: Check
    says: str
    shows: Callable[[pa.Array], pa.Array] = _identity


def outside(smallest: float, largest: float) -> Check:
    """True for numbers below `smallest` or above `largest`."""
    return lambda array: pc.or_(pc.less(array, smallest), pc.greater(array, largest))


def longer(num_chars: int) -> Check:
    """True for texts of more than `num_chars` characters."""
    return lambda array: pc.greater(pc.utf8_length(array), num_chars)


def matches(pattern: str) -> Check:
    """True for texts in which the regular expression is found."""
    return lambda array: pc.match_substring_regex(array, pattern)


def other_than(choices: tuple[str, ...]) -> Check:
    """True for texts that are none of `choices`."""
    return lambda array: pc.and_(pc.is_valid(array), pc.invert(pc.is_in(array, pa.array(choices))))


def no_multiple(divisor: int, remainder: int = 0) -> Check:
    """True for whole numbers that are not n * `divisor` + `remainder`."""

    def check(array: pa.Array) -> pa.Array:
        number = pc.subtract(array, remainder)
        return pc.not_equal(pc.multiply(pc.divide(number, divisor), divisor), number)

    return check


def _experts(breaks: Check) -> Check:
    """`breaks` for either expert's guidance."""
    return lambda array: pc.or_(*(breaks(pc.struct_field(array, name)) for name in ("high", "low")))


def _sides(breaks: Check) -> Check:
    """`breaks` for either side of a size."""
    return lambda array: pc.or_(*(breaks(side) for side in split_size(array)))


def _any_item(breaks: Check) -> Check:
    """`breaks` for any item of a list."""

    def check(array: pa.Array) -> pa.Array:
        rows = pc.list_parent_indices(array).filter(breaks(pc.list_flatten(array)))
        return pc.is_in(pa.array(range(len(array)), pa.int64()), rows.cast(pa.int64()))

    return check


def _is_empty(array: pa.Array) -> pa.Array:
    """True for lists without items."""
    return pc.equal(pc.list_value_length(array), 0)


def split_size(size: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Width and height of texts such as 832x480 or 832*480, int64; null where it is not such a text."""
    parts = pc.extract_regex(size, r"^(?P<width>[0-9]{1,9})[x*](?P<height>[0-9]{1,9})$")
    return pc.struct_field(parts, "width").cast(pa.int64()), pc.struct_field(parts, "height").cast(pa.int64())


RULES = (
    Rule("id", matches(r"^$"), "must not be empty"),
    Rule("id", longer(256), "must have at most 256 characters", pc.utf8_length),
    Rule("id", matches(r"\p{Cc}"), "must have no control characters"),
    Rule("prompt", longer(20_000), "must have at most 20,000 characters", pc.utf8_length),
    Rule("size", lambda array: pc.is_null(split_size(array)[0]), "must be WIDTHxHEIGHT such as 832x480"),
    Rule("size", _sides(outside(16, 8192)), "must have sides of 16 to 8192 pixels"),
    Rule("width", outside(16, 8192), "must be 16 to 8192 pixels"),
    Rule("height", outside(16, 8192), "must be 16 to 8192 pixels"),
    Rule("max_area", outside(16 * 16, 8192 * 8192), "must be 256 to 67108864 pixels"),
    Rule("context_scale", outside(0, 10), "must be 0 to 10"),
    Rule("video_sampling", other_than(SAMPLINGS), f"must be one of {', '.join(SAMPLINGS)}"),
    Rule("reference_images", _is_empty, "must hold at least one image"),
    Rule("key_images", _is_empty, "must hold at least one image"),
    Rule("num_frames", outside(1, MAX_FRAMES), f"must be 1 to {MAX_FRAMES}"),
    Rule("fps", outside(0.1, 240), "must be 0.1 to 240"),
    Rule("steps", outside(1, 1000), "must be 1 to 1000"),
    Rule("shift", outside(0.01, 100), "must be 0.01 to 100"),
    Rule("guidance", _experts(outside(0, 100)), "must be 0 to 100 for both experts"),
    Rule("seed", lambda array: pc.less(array, 0), "must be 0 to 9223372036854775807"),
    Rule("seeds", _is_empty, "must hold at least one seed"),
    Rule("seeds", _any_item(lambda array: pc.less(array, 0)), "must be 0 to 9223372036854775807 each"),
    Rule("priority", outside(-1_000_000, 1_000_000), "must be -1000000 to 1000000"),
    Rule("solver", other_than(SOLVERS), f"must be one of {', '.join(SOLVERS)}"),
)
"""What holds for every model."""

EXCLUSIONS = (("size", "width"), ("size", "height"), ("seeds", "seed"))
"""Pairs of columns of which a row may have one."""


def model_rules(model: Model) -> tuple[Rule, ...]:
    """What holds for `model` on top."""
    pixels, frames = model.size_multiple_px, model.temporal_stride
    examples = f"{frames + 1}, {2 * frames + 1}, ..., {20 * frames + 1}"
    multiple = f"must be a multiple of {pixels} pixels"
    refused = [name for name in INPUT_COLUMNS if name not in model.inputs]
    tasks = (*model.tasks, model.alias) if model.alias else model.tasks
    one = "the task" if len(tasks) == 1 else "a task"
    return (
        Rule("task", other_than(tasks), f"must be {' or '.join(tasks)}, {one} of model {model.name}"),
        Rule("size", _sides(no_multiple(pixels)), f"must have sides that are multiples of {pixels} pixels"),
        Rule("width", no_multiple(pixels), multiple),
        Rule("height", no_multiple(pixels), multiple),
        Rule("num_frames", no_multiple(frames, 1), f"must be {frames}n+1 ({examples})"),
        *(
            Rule(name, pc.is_valid, f"model {model.name} takes no {name}: leave it out", _path_of)
            for name in refused
        ),
    )


def validate(table: pa.Table, model: Model | None, captioned: pa.Array | None = None) -> list[Problem]:
    """Every broken rule of a normalised batch, its row counted within the batch and its id left empty.

    model: None checks only what holds for every model.
    captioned: as for `require_prompt`.
    """
    rules = RULES if model is None else RULES + model_rules(model)
    problems = [
        problem
        for rule in rules
        if rule.column in table.column_names
        for problem in _check(rule, flat(table[rule.column]))
    ]
    problems += [problem for pair in EXCLUSIONS for problem in _check_exclusion(table, *pair)]
    return problems + _blank_prompts(table, model, captioned)


def require_prompt(table: pa.Table, model: Model, captioned: pa.Array | None = None) -> list[Problem]:
    """A problem for each row of a normalised batch without a prompt.

    captioned: true for rows whose image a language model describes; None: for no row.
    """
    message = "is required: give it in the row or as defaults.prompt"
    if model.takes_blank_prompt:
        message += ', or write "" to render from the image alone'
    elif "image" in model.inputs:
        message += ", or have a model write it from the image (extension.method)"
    missing = _but(pc.is_null(column(table, "prompt")), captioned)
    return [Problem(row, "", "prompt", message) for row in rows_where(missing)]


def _blank_prompts(table: pa.Table, model: Model | None, captioned: pa.Array | None) -> list[Problem]:
    """A blank prompt tells nothing, except to a model to which the image tells enough."""
    if model and model.takes_blank_prompt:
        return []
    prompts = column(table, "prompt")
    blank = pc.equal(pc.utf8_trim_whitespace(prompts), "")
    if model is None:
        blank = pc.and_(blank, pc.is_null(column(table, "image")))
    blank = _but(blank, captioned)
    return [broken(row, "prompt", "must not be blank", prompts[row].as_py()) for row in rows_where(blank)]


def _but(mask: pa.Array, exempt: pa.Array | None) -> pa.Array:
    return mask if exempt is None else pc.and_not(mask.fill_null(False), exempt)


def _check(rule: Rule, array: pa.Array) -> list[Problem]:
    rows = rows_where(pc.and_(pc.is_valid(array), rule.breaks(array)))
    if not rows:
        return []
    shown = rule.shows(array.take(pa.array(rows))).to_pylist()
    return [broken(row, rule.column, rule.says, value) for row, value in zip(rows, shown, strict=True)]


def _check_exclusion(table: pa.Table, kept: str, other: str) -> list[Problem]:
    if not {kept, other} <= set(table.column_names):
        return []
    both = pc.and_(pc.is_valid(flat(table[kept])), pc.is_valid(flat(table[other])))
    values = flat(table[kept])
    return [
        broken(row, kept, f"excludes {other} in the same row: keep one of them", values[row].as_py())
        for row in rows_where(both)
    ]
