"""Ray's label selectors, for asking beforehand which nodes they take: `a`, `!a`, `in(a, b)`, `!in(a, b)`.

https://docs.ray.io/en/latest/ray-core/scheduling/labels.html
"""

import re
from collections.abc import Iterable, Mapping

from wanray.errors import ConfigError

_VALUE = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?"
_CONDITION = re.compile(rf"(!?)(?:(?:in)?\(({_VALUE}(?:, ?{_VALUE})*)\)|({_VALUE}))")


def takes(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with `labels` qualifies; one without the label qualifies for `!`, as it does for Ray.

    Raises:
        ConfigError: a condition that Ray would refuse.
    """
    return all(_holds(key, condition, labels.get(key)) for key, condition in selector.items())


def values_of(selector: Mapping[str, str], nodes: Iterable[Mapping[str, str]]) -> str:
    """What the nodes have of the labels that `selector` asks for, in words."""
    found = {key: {labels.get(key, "none") for labels in nodes} for key in selector}
    return "; ".join(f"{key} is {' or '.join(sorted(values))}" for key, values in found.items() if values)


def _holds(key: str, condition: str, value: str | None) -> bool:
    parts = _CONDITION.fullmatch(condition)
    if parts is None:
        raise ConfigError(f"{key} must be a value, '!value', in(a, b) or '!in(a, b)', got {condition!r}")
    negation, several, single = parts.groups()
    wanted = re.split(r", ?", several) if several else [single]
    return (value in wanted) != bool(negation)
