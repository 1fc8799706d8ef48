"""How commands print for people."""

import sys
from typing import Any


def print_page(page: Any, width: int | None = None) -> None:
    """Print for people; into a file or pipe whole lines, with tables as wide as `width`."""
    from rich.console import Console

    piped = not sys.stdout.isatty()
    Console(soft_wrap=piped, width=width if piped else None).print(page, highlight=False)
