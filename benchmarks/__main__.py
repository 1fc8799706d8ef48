"""`python -m benchmarks [NAME ...]`: run, print as tables, write `benchmarks/results/NAME.json`."""

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ON_GPUS = ("expert_step",)
"""Only where there is one, and only if named."""
NAMES = ("efficiency", "wall_time", "planning", "load_memory", "vae_memory", "faults", "encoding", "gangs")


def main(names: list[str]) -> None:
    """Run the benchmarks called `names`, of `NAMES` and `ON_GPUS`; without any, all of `NAMES`."""
    for name in names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        results = module.run()
        show(name, (module.__doc__ or "").splitlines()[0], results)
        write(name, results)


def show(name: str, title: str, results: list[dict[str, float | str]]) -> None:
    """Print one table."""
    table = Table(*results[0], title=f"{name}: {title}", title_justify="left")
    for row in results:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def write(name: str, results: list[dict[str, float | str]]) -> None:
    """Keep the numbers with where and when they were measured."""
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()}
    content = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "results": results}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
