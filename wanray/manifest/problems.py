"""What is wrong with a manifest row, and how to say it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

SHOWN_CHARS = 80
"""Longest excerpt of a value in a message."""
SHOWN_PATH_CHARS = 1000
"""The same of a path: without its end it names nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule.

    `row` counts from 0 in manifest order; `column` is empty where the whole row is broken.
    """

    row: int
    id: str
    column: str
    message: str

    def __str__(self) -> str:
        """Such as `row 17 (id "cat"), column num_frames: must be 4n+1 (5, 9, ..., 81), got 80`."""
        return f'row {self.row} (id "{excerpt(self.id)[1:-1]}"){"," if self.column else ":"} {self.in_row}'

    @property
    def in_row(self) -> str:
        """The text without row and id."""
        return f"column {self.column}: {self.message}" if self.column else self.message


def broken(row: int, column: str, rule: str, value: object) -> Problem:
    """The problem of a `value` that breaks `rule`; `row` counts within the batch, the id is not known yet."""
    return Problem(row, "", column, f"{rule}, got {excerpt(value)}")


def located(problems: Iterable[Problem], first_row: int, ids: list[str]) -> list[Problem]:
    """The problems of one batch in row order, with their row in the manifest and their id."""
    ordered = sorted(problems, key=lambda problem: problem.row)
    return [replace(item, row=first_row + item.row, id=ids[item.row]) for item in ordered]


def describe(problems: list[Problem]) -> str:
    """All problems of one row as one message."""
    return "; ".join([str(problems[0]), *(problem.in_row for problem in problems[1:])])


def excerpt(value: object, most_chars: int = SHOWN_CHARS) -> str:
    """`value` as Python writes it, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= most_chars else f"{text[: most_chars - 3]}..."
