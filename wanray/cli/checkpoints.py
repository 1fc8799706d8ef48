"""The commands that know checkpoints and models."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wanray.cli.pages import print_page
from wanray.errors import ConfigError


def tiny(
    model: Annotated[str, typer.Argument(help="A model of the registry, such as t2v-1.3b or t2v-a14b.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Write a tiny random checkpoint (under a megabyte) to try things out; it renders noise."""
    from wanray.stage import load

    try:
        load("wanray.models.tiny:write_tiny")(model, output)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written ({error.strerror}): name a new folder") from None
    print(f"tiny random {model} written to {output}")


def models(
    name: Annotated[str | None, typer.Argument(help="Show all about this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print the models that wanray knows, with their tasks, inputs and official defaults."""
    from wanray import catalog
    from wanray.registry import MODELS, get_model

    chosen = [get_model(name)] if name else list(MODELS.values())
    if as_json:
        rows = [catalog.model_json(model) for model in chosen]
        print(json.dumps(rows[0] if name else rows, indent=1, ensure_ascii=False))
    else:
        print_page(catalog.model_card(chosen[0]) if name else catalog.models_table(chosen), width=200)


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint folder, or owner/name on a hub.")
    ],
    output: Annotated[Path, typer.Argument(metavar="DST", help="New folder to write.")],
    dtype: Annotated[str, typer.Option(help="Of transformers and text encoder; or float32.")] = "bfloat16",
    name: Annotated[str | None, typer.Option(help="Model, where the files do not tell.")] = None,
    max_shard_gib: Annotated[float, typer.Option(help="Weights are split into files of this size.")] = 4.0,
) -> None:
    """Write a checkpoint in Diffusers layout, in bfloat16: half as much to read at every start.

    The same command again goes on where it was stopped, and checks what is there.
    """
    from wanray.hub import resolve
    from wanray.stage import load

    done = load("wanray.models.convert:convert")(resolve(source), str(output), dtype, name, max_shard_gib)
    print(
        f"{output} holds {done.model} in Diffusers layout: {done.num_files} files "
        f"({done.num_kept} were there), {done.num_tensors} tensors, {done.num_bytes / 1e9:.3g} GB, "
        f"in {done.seconds:.1f} s"
    )
