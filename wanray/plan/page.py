"""The plan as one page for people (rich) and as JSON for machines."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.plan.model import Counts, Plan, PoolPlan, ShapeGroup

SHOWN_GROUPS = 12
WORTH_SAYING_S = 60.0
"""Time that gangs wait for those who encode."""


def plan_json(plan: Plan) -> dict[str, Any]:
    """All values of the plan, with the totals."""
    return asdict(plan) | {"estimate_s": plan.estimate_s, "gpu_hours": plan.gpu_hours}


def plan_page(plan: Plan) -> RenderableType:
    """What will be done, on what, how long."""
    counts = plan.counts
    lines = [
        Text.assemble(("wanray plan ", "bold"), plan.run),
        Text(f"model      {plan.model['name']} ({plan.model['digest'][:12]}), placement {plan.placement}"),
        Text(f"numerics   {', '.join(f'{name} {value}' for name, value in plan.numerics.items())}"),
        Text(
            f"requests   {counts.left} to render of {counts.requests} ({counts.committed} committed, "
            f"{counts.merged} repeated{_left_alone(counts)}); {counts.invalid} of {counts.rows} rows invalid"
        ),
    ]
    if plan.extension:
        lines.insert(-1, Text(_extension_line(**plan.extension)))
    lines += [Text(f"note       {note}") for note in plan.notes]
    lines += [Text(f"invalid    {problem}", style="yellow") for problem in plan.problems]
    hidden = plan.num_problems - len(plan.problems)
    if hidden > 0:
        lines.append(Text(f"invalid    ... and {hidden} more problems", style="yellow"))
    if not counts.left:
        return Group(*lines)
    if not plan.groups:  # nothing is denoised
        return Group(*lines, _pool_table(plan))
    return Group(*lines, _group_table(plan.groups), _pool_table(plan), _estimate_line(plan))


def _extension_line(method: str, models: list[str], language: str, variants: int) -> str:
    each = f", {variants} variants of each" if variants > 1 else ""
    return f"prompts    extended by {method} ({', '.join(models)}), in {language}{each}"


def _left_alone(counts: Counts) -> str:
    failed = f", {counts.failed_before} failed before (--retry-failed)" if counts.failed_before else ""
    return failed + (f", {counts.not_chosen} not asked for" if counts.not_chosen else "")


def _group_table(groups: tuple[ShapeGroup, ...]) -> Table:
    table = Table(
        "size", "frames", "steps", "solver", "requests", "tokens", "TFLOP/clip", box=None, pad_edge=False
    )
    for group in groups[:SHOWN_GROUPS]:
        split = "+".join(str(number) for number in group.steps_per_expert.values())
        steps = f"{group.steps} ({split})" if len(group.steps_per_expert) > 1 else str(group.steps)
        table.add_row(
            f"{group.width}x{group.height}",
            str(group.num_frames),
            steps,
            f"{group.solver} shift {group.shift:g}",
            str(group.num_requests),
            f"{group.tokens:,}",
            f"{group.tflop_per_clip:,.3g}",
        )
    if len(groups) > SHOWN_GROUPS:
        rest = sum(group.num_requests for group in groups[SHOWN_GROUPS:])
        table.add_row("...", "", "", f"{len(groups) - SHOWN_GROUPS} more", str(rest))
    return table


def _pool_table(plan: Plan) -> Table:
    table = Table("pool", "experts", "workers", "busy", box=None, pad_edge=False)
    for pool in plan.pools:
        is_known = plan.estimate_s and (pool.experts or pool.needed is not None)
        share = f"{pool.busy_s / plan.estimate_s:.0%}" if is_known else "-"
        table.add_row(pool.name, "+".join(pool.experts) or "-", _workers(pool) + _too_few(pool, plan), share)
    return table


def _too_few(pool: PoolPlan, plan: Plan) -> str:
    denoise_s = max((other.busy_s for other in plan.pools if other.experts), default=0.0)
    if pool.needed is None or pool.busy_s - denoise_s < WORTH_SAYING_S:
        return ""
    return f"; {pool.needed} would keep the gangs busy"


def _workers(pool: PoolPlan) -> str:
    number, ranks = pool.num_workers, pool.world_size
    if not pool.experts:
        return f"{number} actor{'s' if number > 1 else ''}"
    return f"{number} gang{'s' if number > 1 else ''} of {ranks} rank{'s' if ranks > 1 else ''}"


def _estimate_line(plan: Plan) -> Text:
    assumed = ", ".join(f"{name} {value:g}" for name, value in plan.assumptions.items())
    whole = f"{format_seconds(plan.estimate_s)}, {plan.gpu_hours:.3g} GPU hours"
    return Text(f"estimate   {whole} (assumes {assumed})")


def format_seconds(seconds: float) -> str:
    """Such as `45 s`, `12 min`, `7 h 30 min`."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
