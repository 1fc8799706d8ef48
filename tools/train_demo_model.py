"""Trains the models of the demo from nothing: `python -m tools.train_demo_model`, and again after a stop.

Parts follow one another; each keeps what it has in the folder `--work`, with a line now and then and pictures
of held-out prompts. On one CPU core of 50 GFLOP/s the VAEs take 75 minutes each.
"""

import argparse
from pathlib import Path

import torch

from tools.demo_model.parts import PARTS, Workshop


def main() -> None:
    """Train what is named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any: all, in order"
    )
    parser.add_argument("--work", type=Path, default=Path(".demo-training"), help="where trainings are kept")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where checkpoints are written")
    parser.add_argument(
        "--given", type=Path, help="checkpoints whose VAEs and first transformer are taken, not trained: demo"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--threads", type=int, help="of a CPU; parts that do not build on each other may run side by side"
    )
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.parts) - set(PARTS)):
        parser.error(f"no part is called {unknown[0]!r}: there are {', '.join(PARTS)}")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    chosen.work.mkdir(parents=True, exist_ok=True)
    workshop = Workshop(chosen.work, chosen.out, chosen.device, chosen.given)
    for name, make in PARTS.items():
        if not chosen.parts or name in chosen.parts:
            make(workshop)


if __name__ == "__main__":
    main()
