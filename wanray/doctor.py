"""What is wrong, all at once: a diagnosis has facts, problems and a verdict. This one: a checkpoint folder.

Torch-free; what needs torch is reached by import string, and only where the rest is sound.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.checkpoint import Checkpoint, Component, diffusers, official, open_checkpoint
from wanray.checkpoint.anatomy import Part, layout_of, parts_of, plain
from wanray.checkpoint.conversion import RECORD, read_record
from wanray.checkpoint.identify import identify
from wanray.errors import ConfigError
from wanray.registry import Model, get_model
from wanray.stage import load

REPEAT = "run the same `wanray convert` again"


@dataclass(kw_only=True, slots=True)
class Diagnosis:
    """What was looked at, and what is wrong with it."""

    subject: str
    facts: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def all_problems(self) -> list[str]:
        """With the name of the part in front, where a part has it."""
        return [f"{part.name}: {text}" for part in self.parts for text in part.problems] + self.problems

    @property
    def verdict(self) -> str:
        """The last line."""
        count = len(self.all_problems)
        if not count:
            return f"healthy: {self.subject}"
        return f"not usable: {self.subject} has {count} problem{'s' if count > 1 else ''}"


def diagnose_checkpoint(path: str, name: str | None = None, *, with_loading: bool = False) -> Diagnosis:
    """Everything that is missing or damaged in the checkpoint folder `path`.

    Raises:
        ConfigError: `name` is no model.
    """
    folder = Path(path).absolute()
    found = Diagnosis(subject=str(folder))
    layout = layout_of(folder)
    if not layout:
        found.problems += _said(lambda: open_checkpoint(path, name))
        return found
    model, unidentified = _model(folder, layout, name)
    found.facts = {"layout": layout, "model": model.name if model else "unknown"}
    found.parts = parts_of(folder, layout, model)
    found.problems += [
        text for text in unidentified if not any(text in part.problems for part in found.parts)
    ]
    if not found.all_problems:
        found.problems += _said(lambda: open_checkpoint(path, name))
    found.problems += _conversion_problems(folder, found.facts)
    if not found.all_problems:
        _ask_networks(open_checkpoint(path, name), found, with_loading=with_loading)
    return found


def page(found: Diagnosis) -> RenderableType:
    """The diagnosis for people; the verdict comes last."""
    lines = [Text.assemble((f"{word:<11}", "bold"), fact) for word, fact in found.facts.items()]
    columns = ("part", "files", "size", "tensors", "parameters", "dtype", "loads in", "")
    table = Table(*columns, box=None, pad_edge=False)
    for part in found.parts:
        state = f"{len(part.problems)} problems" if part.problems else "ok"
        tensors = (str(part.num_tensors), f"{part.num_parameters:,}") if part.num_tensors else ("-", "-")
        row = (part.name, str(len(part.files)), _size(part.num_bytes), *tensors)
        loading = "-" if part.loaded_s is None else f"{part.loaded_s:.1f} s"
        table.add_row(*row, ", ".join(sorted(part.dtypes)) or "-", loading, state)
    problems = [Text(f"problem    {text}", style="red") for text in found.all_problems]
    return Group(*lines, *([table] if found.parts else []), *problems, Text(found.verdict, style="bold"))


def _model(folder: Path, layout: str, name: str | None) -> tuple[Model | None, list[str]]:
    """The model that the files are, as far as they tell, and what they fail to tell."""
    named = get_model(name) if name else None
    inspect = (diffusers if layout == "diffusers" else official).inspect
    try:
        return identify(folder, inspect(folder), name), []
    except ConfigError as error:
        return named, [plain(error)]


def _said(act: Callable[[], object]) -> list[str]:
    try:
        act()
    except ConfigError as error:
        return [plain(error)]
    return []


def _conversion_problems(folder: Path, facts: dict[str, str]) -> Iterator[str]:
    """What the record of `wanray convert` says against the files."""
    try:
        record = read_record(folder)
    except ConfigError as error:
        yield str(error)
        return
    if record is None:
        return
    facts["converted"] = f"from {record.source} ({record.origin.digest[:12]}), {record.origin.dtype}"
    if not record.is_complete:
        yield f"{folder / RECORD} says that the conversion is not finished: {REPEAT}"
    for name in record.files:
        if not record.is_intact(name):
            yield f"{folder / name} is not what `wanray convert` wrote: {REPEAT}"


def _ask_networks(checkpoint: Checkpoint, found: Diagnosis, *, with_loading: bool) -> None:
    if problem := load("wanray.models.checks:tokenizer_problem")(checkpoint.tokenizer):
        found.problems.append(f"tokenizer: {checkpoint.tokenizer} {problem}")
    if not with_loading:
        return
    components = {component.files: component for component in checkpoint.components()}
    for part in found.parts:
        if component := components.get(tuple(map(str, part.files))):
            part.try_to(lambda part=part, component=component: _try_network(component, part))


def _try_network(component: Component, part: Part) -> None:
    part.problems += [f"{component.path} {text}" for text in load("wanray.models.checks:misfits")(component)]
    if not part.problems:
        part.loaded_s = load("wanray.models.checks:load_seconds")(component)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"
