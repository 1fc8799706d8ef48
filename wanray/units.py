"""How quantities read: seconds, bytes, rates. For people only; machines get numbers."""

BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_seconds(seconds: float) -> str:
    """Such as `45 s`, `12 min`, `7 h 30 min`."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def format_bytes(num_bytes: float) -> str:
    """Such as `3.2 MB`."""
    for unit in BYTE_UNITS[:-1]:
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} {BYTE_UNITS[-1]}"
