"""Reads single files of an output. Gives them no meaning."""

import json
from typing import Any

from wanray.storage import Store


def read_object(store: Store, path: str) -> dict[str, Any] | None:
    """The JSON object at `path`; None where there is none, or where it cannot be used."""
    try:
        value = json.loads(store.read(path))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None
