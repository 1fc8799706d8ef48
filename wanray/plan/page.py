"""The plan as one page for people (rich)."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wanray.plan.model import BrokenRule, Counts, Estimate, Plan, PoolPlan, ShapeGroup
from wanray.units import format_bytes, format_seconds

SHOWN_GROUPS = 12
SHOWN_RULES = 12
ALIKE = 3
"""Rows that break the same rule and are named each; of more the first is."""
WORTH_SAYING_S = 60.0
"""Time that gangs wait for those who encode or decode."""


def plan_page(plan: Plan) -> RenderableType:
    """What will be done, on what, how long."""
    lines: list[RenderableType] = [*_head(plan), *_invalid(plan)]
    if plan.counts.left and plan.groups:
        lines += [_group_table(plan.groups), _pool_table(plan), *_bases(plan.pools), *_estimate_lines(plan)]
    elif plan.counts.left:  # nothing is denoised
        lines.append(_pool_table(plan))
    return Group(*lines)


def _head(plan: Plan) -> Iterator[Text]:
    counts, reason = plan.counts, f" ({plan.placement_reason})" if plan.placement_reason else ""
    yield Text.assemble(("wanray plan ", "bold"), plan.run)
    yield Text(f"model      {plan.model['name']} ({plan.model['digest'][:12]})")
    yield Text(f"numerics   {', '.join(f'{name} {value}' for name, value in plan.numerics.items())}")
    yield Text(f"placement  {plan.placement}{reason}")
    if plan.extension:
        yield Text(_extension_line(**plan.extension))
    yield Text(
        f"requests   {counts.left} to render of {counts.requests} ({counts.committed} committed, "
        f"{counts.merged} repeated{_left_alone(counts)}); {counts.invalid} of {counts.rows} rows invalid"
    )
    for note in plan.notes:
        yield Text(f"note       {note}")


def _extension_line(method: str, models: list[str], language: str, variants: int) -> str:
    each = f", {variants} variants of each" if variants > 1 else ""
    return f"prompts    extended by {method} ({', '.join(models)}), in {language}{each}"


def _left_alone(counts: Counts) -> str:
    failed = f", {counts.failed_before} failed before (--retry-failed)" if counts.failed_before else ""
    return failed + (f", {counts.not_chosen} not asked for" if counts.not_chosen else "")


def _invalid(plan: Plan) -> Iterator[Text]:
    """What will fail, and why; redecoding tells messages only."""
    for rule in plan.broken_rules[:SHOWN_RULES]:
        for line in _rule_lines(rule):
            yield Text(f"invalid    {line}", style="yellow")
    hidden = len(plan.broken_rules) - SHOWN_RULES
    if hidden > 0:
        yield Text(f"invalid    ... and {hidden} more rules", style="yellow")
    if not plan.broken_rules:
        for problem in plan.problems:
            yield Text(f"invalid    {problem}", style="yellow")


def _rule_lines(rule: BrokenRule) -> list[str]:
    if rule.num_rows <= ALIKE:
        return list(rule.examples)
    where = f"column {rule.column}: " if rule.column else ""
    return [f"{rule.num_rows} rows: {where}{rule.rule}; the first is {rule.examples[0]}"]


def _group_table(groups: tuple[ShapeGroup, ...]) -> Table:
    is_mixed = len({group.basis for group in groups}) > 1
    names = ("size", "frames", "steps", "solver", "requests", "TFLOP/clip", "s/clip", "gang s", "bytes")
    table = Table(*names, *(["gang s is"] if is_mixed else []), box=None, pad_edge=False)
    for group in groups[:SHOWN_GROUPS]:
        split = "+".join(str(number) for number in group.steps_per_expert.values())
        table.add_row(
            f"{group.width}x{group.height}",
            str(group.num_frames),
            f"{group.steps} ({split})" if len(group.steps_per_expert) > 1 else str(group.steps),
            f"{group.solver} shift {group.shift:g}",
            str(group.num_requests),
            plain(group.tflop_per_clip),
            plain(group.clip_s),
            plain(group.gang_s),
            format_bytes(group.clip_bytes),
            *([group.basis] if is_mixed else []),
        )
    if len(groups) > SHOWN_GROUPS:
        rest = sum(group.num_requests for group in groups[SHOWN_GROUPS:])
        table.add_row("...", "", "", f"{len(groups) - SHOWN_GROUPS} more", str(rest))
    return table


def plain(value: float) -> str:
    """Three digits at least, and never `1e+03`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _pool_table(plan: Plan) -> Table:
    names = ("pool", "experts", "workers", "GPUs", "s/request", "busy")
    table = Table(*names, box=None, pad_edge=False)
    for pool in plan.pools:
        is_known = bool(plan.estimate_s) and (pool.experts or pool.needed is not None)
        table.add_row(
            pool.name,
            "+".join(pool.experts) or "-",
            _workers(pool) + _too_few(pool, plan),
            f"{pool.num_gpus:g}" if pool.num_gpus else "-",
            plain(pool.mean_s) if is_known else "-",
            f"{pool.busy_s / plan.estimate_s:.0%}" if is_known else "-",
        )
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
    arranged = f" ({pool.topology}, {pool.arranged_by})" if pool.topology else ""
    return f"{number} gang{'s' if number > 1 else ''} of {ranks} rank{'s' if ranks > 1 else ''}{arranged}"


def _bases(pools: tuple[PoolPlan, ...]) -> Iterator[Text]:
    """What the times rest on; pools of one basis share a line."""
    for basis in dict.fromkeys(pool.basis for pool in pools):
        names = ", ".join(pool.name for pool in pools if pool.basis == basis)
        yield Text(f"basis      {names}: {basis}")


def _estimate_lines(plan: Plan) -> Iterator[Text]:
    estimate = plan.estimate
    start = f", after {format_seconds(estimate.start_s)} to start" if estimate.start_s else ""
    bound = f"{plain(estimate.clips_per_hour)} clips/h; {estimate.busiest} is the busiest pool"
    yield Text(f"time       {format_seconds(estimate.whole_s)}{start}: {bound}")
    yield Text(f"cost       {cost_words(estimate)}")
    states = f", and {format_bytes(estimate.work_bytes)} of states meanwhile" if estimate.work_bytes else ""
    yield Text(f"storage    {format_bytes(estimate.storage_bytes)} ({estimate.storage_basis}){states}")


def cost_words(estimate: Estimate) -> str:
    """Such as `12 GPU hours on 8 GPUs: 30.00 USD`."""
    plural = "" if estimate.num_gpus == 1 else "s"
    hours = f"{plain(estimate.gpu_hours)} GPU hours on {estimate.num_gpus:g} GPU{plural}"
    if estimate.cost is None:
        return f"{hours} (estimate.price_per_gpu_hour tells what they cost)"
    return f"{hours}: {format_cost(estimate)}"


def format_cost(estimate: Estimate) -> str:
    """Such as `30.00 USD`; nothing where nobody said what a GPU costs."""
    return "" if estimate.cost is None else f"{estimate.cost:,.2f} {estimate.currency}"
