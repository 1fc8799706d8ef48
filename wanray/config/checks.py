"""How a value that is out of range is refused."""

from typing import Any

from wanray.errors import ConfigError


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(choices)}, got {value!r}")


def check_at_least(key: str, value: float | None, smallest: float) -> None:
    """Raise ConfigError if `value` is given and below `smallest`."""
    if value is not None and not value >= smallest:
        raise ConfigError(f"{key} must be at least {smallest}, got {value}")


def check_texts(key: str, value: Any) -> None:
    """Raise ConfigError unless `value` is None, a text, or a list of texts."""
    texts = value if isinstance(value, list) else [value]
    if value is not None and (not texts or not all(isinstance(text, str) for text in texts)):
        raise ConfigError(
            f"{key} must be a text or a list of texts, got {value!r}: text with a : or like a number "
            f"""needs quotes, such as "{key}='...'\""""
        )
