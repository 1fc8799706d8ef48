"""Renaming by tables: the longest dotted beginning of a name that a table has is replaced."""


def rename(name: str, table: dict[str, str]) -> str | None:
    """`name` with its beginning replaced; None where the table has no beginning of it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (start := ".".join(parts[:length])) in table:
            return ".".join([table[start], *parts[length:]])
    return None
