"""Alternatives as one table for people (rich)."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.plan.compare import Alternative
from wanray.plan.page import format_cost, plain
from wanray.units import format_seconds


def compare_page(alternatives: Sequence[Alternative]) -> RenderableType:
    """A row each; what is best is marked."""
    keys = list(alternatives[0].settings)
    has_cost = any(item.estimate is not None and item.estimate.cost is not None for item in alternatives)
    cost = ["cost"] if has_cost else []
    table = Table(
        *keys, "GPUs", "time", "GPU hours", *cost, "clips/h", "busiest pool", "", box=None, pad_edge=False
    )
    for item in alternatives:
        values = [item.settings[key] for key in keys]
        style = "green" if item.best else "dim" if item.refused else None
        table.add_row(*values, *_numbers(item, has_cost), _remark(item), style=style)
    return Group(Text.assemble(("alternatives", "bold"), f" ({len(alternatives)})"), table)


def _numbers(item: Alternative, has_cost: bool) -> list[str]:
    estimate = item.estimate
    if estimate is None:
        return ["-"] * (5 + has_cost)
    return [
        f"{estimate.num_gpus:g}",
        format_seconds(estimate.start_s + estimate.whole_s),
        plain(estimate.gpu_hours),
        *([format_cost(estimate)] if has_cost else []),
        plain(estimate.clips_per_hour),
        estimate.busiest,
    ]


def _remark(item: Alternative) -> str:
    if item.refused:
        return f"refused: {item.refused}"
    best = " and ".join(item.best)
    return "; ".join(([f"<- {best}"] if best else []) + list(item.notes))
