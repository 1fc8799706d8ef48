"""Writes the parts of the documentation that are made from the code: `make docs`.

A part stands between two comments, `<!-- made: NAME -->` and `<!-- end: NAME -->`; the rest of a page is
written by hand.
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from wanray.config.reference import config_reference
from wanray.live.metrics import metrics_table
from wanray.manifest.reference import manifest_reference
from wanray.plan.flops import forward_tflop, num_tokens
from wanray.registry import MODELS
from wanray.schedule import MODES, make_schedule

DOCS = Path(__file__).parents[1] / "docs"
STEPS = (4, 20, 30, 40, 50)
SHIFTS = (3.0, 5.0, 8.0, 12.0)
SHAPES = (("t2v-a14b", 1280, 720), ("t2v-a14b", 832, 480), ("t2v-1.3b", 832, 480), ("ti2v-5b", 1280, 704))
FULL_RATE_TFLOPS = 790
"""What one H100 sustains in dense bfloat16."""


def steps_table() -> str:
    """Steps of each expert, by model, shift and number of steps; the official ones are bold."""
    lines = [
        f"| model | numerics | shift | {' | '.join(f'{steps} steps' for steps in STEPS)} |",
        "|---|---|---|" + "---|" * len(STEPS),
    ]
    for model in MODELS.values():
        for mode in MODES if model.boundary is not None else ():
            for shift in SHIFTS:
                cells = [_split(model.name, mode, shift, steps) for steps in STEPS]
                lines.append(f"| {model.name} | {mode} | {shift:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _split(name: str, mode: str, shift: float, steps: int) -> str:
    model = MODELS[name]
    high = make_schedule(steps, shift, "unipc", mode).steps_high(model.boundary)
    text = f"{high} + {steps - high}"
    is_official = (mode, shift, steps) == ("official", model.defaults.shift, model.defaults.steps)
    return f"**{text}**" if is_official else text


def flops_table() -> str:
    """What one clip of a few models takes by the plan's FLOP model."""
    lines = [
        "| model and shape | tokens | TFLOP per forward | steps | at full rate, 1 GPU |",
        "|---|---|---|---|---|",
    ]
    for name, width, height in SHAPES:
        model = MODELS[name]
        frames, steps = model.defaults.num_frames, model.defaults.steps
        tokens = num_tokens(width, height, frames, model)
        tflop = forward_tflop(tokens, model.dims)
        seconds = 2 * steps * tflop / FULL_RATE_TFLOPS
        shape = f"{name} {width}x{height}, {frames} frames"
        lines.append(f"| {shape} | {tokens:,} | {tflop:,.0f} | {steps} | {seconds:,.0f} s |")
    return "\n".join(lines) + "\n"


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "config": ("config.md", config_reference),
    "columns": ("manifest.md", manifest_reference),
    "flops": ("performance.md", flops_table),
    "metrics": ("metrics.md", metrics_table),
    "steps": ("parallelism.md", steps_table),
}
"""Name -> page and what makes it."""


def made(page: str, text: str) -> str:
    """`text` of a page with its parts made anew.

    Raises:
        ValueError: a part has no place on its page.
    """
    for name, (where, make) in PARTS.items():
        if where != page:
            continue
        start, end = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
        if start not in text or end not in text:
            raise ValueError(f"{page} has no place for {name}: write {start} and {end}")
        before, after = text.partition(start)[0], text.partition(end)[2]
        text = f"{before}{start}\n\n{make()}\n{end}{after}"
    return text


def main() -> None:
    """Write all pages that have such parts."""
    for page in sorted({where for where, _ in PARTS.values()}):
        path = DOCS / page
        path.write_text(made(page, path.read_text()))


if __name__ == "__main__":
    main()
