"""The command that makes manifests."""

from typing import Annotated

import typer


def manifest(
    source: Annotated[str, typer.Argument(help="A text file (one prompt per line), JSONL, CSV or Parquet.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The Parquet file to write.")],
) -> None:
    """Convert a list of prompts to a Parquet manifest and validate every value."""
    from wanray.manifest import convert

    print(f"{convert(source, output)} rows written to {output}")
