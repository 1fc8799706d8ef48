"""What is wrong with the rows of a manifest, counted by rule: rows that are wrong alike are one line."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from wanray.manifest import Problem
from wanray.plan.model import BrokenRule

MAX_MESSAGES = 20
MAX_EXAMPLES = 3
MAX_RULES = 200
"""A message may name what no other row has, such as a file; of such rules only so many are told apart."""
_VALUE = re.compile(r", got .*", re.DOTALL)
_OTHER_ROW = re.compile(r"\brow \d+")


@dataclass(slots=True)
class Problems:
    """Collects problems in bounded memory."""

    num: int = 0
    messages: list[str] = field(default_factory=list)
    """The first `MAX_MESSAGES`."""
    _rules: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, problems: Iterable[Problem]) -> None:
        """Take up more of them."""
        for problem in problems:
            self.num += 1
            if len(self.messages) < MAX_MESSAGES:
                self.messages.append(str(problem))
            self._count(problem)

    def _count(self, problem: Problem) -> None:
        rule = _OTHER_ROW.sub("another row", _VALUE.sub("", problem.message))
        key = (problem.column, rule)
        if key not in self._rules and len(self._rules) >= MAX_RULES:
            key = ("", "other rules")
        examples = self._rules.setdefault(key, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(str(problem))
        self._counts[key] = self._counts.get(key, 0) + 1

    def broken_rules(self) -> tuple[BrokenRule, ...]:
        """By rule, the most broken first, then in the order of their first row."""
        ordered = sorted(self._rules, key=lambda key: -self._counts[key])
        return tuple(
            BrokenRule(
                column=column, rule=rule, num_rows=self._counts[column, rule], examples=tuple(examples)
            )
            for (column, rule), examples in ((key, self._rules[key]) for key in ordered)
        )
