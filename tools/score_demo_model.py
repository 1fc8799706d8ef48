"""Prints how well the demo's models do what prompts say, and what of it is lost when something is wrong.

`python -m tools.score_demo_model`: a table of 64 held-out prompts, each rendered by `wanray render`.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.demo_model.scenes import Scene
from tools.demo_model.scoring import HEAD, Scores, held_out, score

TWO, ONE = "t2v-a14b", "ti2v-5b"
WRONG = ("defaults.guidance=1", "defaults.shift=1", "defaults.shift=50")


def main() -> None:
    """Score what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("demo"), help="folder of the checkpoints")
    parser.add_argument("--prompts", type=int, default=64, help="how many of the held-out ones")
    chosen = parser.parse_args()
    print(HEAD)
    with tempfile.TemporaryDirectory() as work:
        for name, scores in all_scores(chosen.models.absolute(), chosen.prompts, Path(work)):
            print(scores.row(name), flush=True)


def all_scores(models: Path, count: int, work: Path) -> Iterator[tuple[str, Scores]]:
    """Of both models as they are, and of the one with two experts with each thing wrong."""
    scenes = held_out(count)
    if (models / ONE / "model_index.json").exists():
        yield f"{ONE}, text", score(models / ONE, scenes, work / "text")
        yield f"{ONE}, text and image", score(models / ONE, scenes, work / "image", with_images=True)
        yield from _with_wrong_settings(models / ONE, scenes, work / ONE)
    if (models / TWO / "model_index.json").exists():
        swapped = swap_experts(models / TWO, work / "swapped")
        yield TWO, score(models / TWO, scenes, work / "two")
        yield f"{TWO}, experts swapped", score(swapped, scenes, work / "swapped-out")
        yield from _with_wrong_settings(models / TWO, scenes, work / TWO)


def _with_wrong_settings(model: Path, scenes: list[Scene], work: Path) -> Iterator[tuple[str, Scores]]:
    for wrong in WRONG:
        name = wrong.removeprefix("defaults.")
        yield f"{model.name}, {name}", score(model, scenes, work / name, wrong)


def swap_experts(model: Path, folder: Path) -> Path:
    """A copy of a checkpoint whose two experts have changed places."""
    shutil.copytree(model, folder)
    (folder / "transformer").rename(folder / "third")
    (folder / "transformer_2").rename(folder / "transformer")
    (folder / "third").rename(folder / "transformer_2")
    return folder


if __name__ == "__main__":
    main()
