"""Groups failures that are alike: one stage and cause, and messages that differ only in names and numbers."""

import re
from typing import Any

MAX_KEYS = 100
"""Of a group; all are counted."""
_TELLING_ROWS_APART = re.compile(r"\b[0-9a-f]{16,}\b|\"[^\"]*\"|\d+(\.\d+)?")


def group_failures(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of the failed ones among `clips`, the largest first: what they share, an example, keys."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for clip in clips:
        if clip["status"] != "failed":
            continue
        shared = {name: clip.get(name, "") for name in ("class", "cause", "stage")}
        group = groups.setdefault(
            (*shared.values(), shape_of(clip.get("message", ""))),
            shared | {"message": clip.get("message", ""), "count": 0, "keys": []},
        )
        group["count"] += 1
        if len(group["keys"]) < MAX_KEYS:
            group["keys"].append(clip["key"])
    return sorted(groups.values(), key=lambda group: -group["count"])


def shape_of(message: str) -> str:
    """The message without what tells one row from another: keys, numbers, quoted names."""
    return _TELLING_ROWS_APART.sub("#", " ".join(message.split()))
