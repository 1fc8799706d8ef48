"""Scores of a demo checkpoint: held-out prompts, rendered by the product, judged by their pixels."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from tools.demo_model.scenes import Scene, draw, split_scenes
from tools.demo_model.scorer import Seen, is_clean, look, psnr
from wanray.media.video import probe_video, read_frames

SEEN = ("colour", "direction", "background", "shape")
NAMES = (*SEEN, "clean")
CONFIG = "configs/demo.yaml"
SIZE_PX = 64


@dataclass(frozen=True, slots=True)
class Scores:
    """What share of clips show what was asked for."""

    shares: dict[str, float]
    first_frame_db: float | None = None
    """Mean PSNR between the given image and the first frame, where one was given."""

    def row(self, name: str) -> str:
        """A line of a Markdown table."""
        cells = [f"{self.shares[each]:.0%}" for each in NAMES]
        cells.append("" if self.first_frame_db is None else f"{self.first_frame_db:.1f} dB")
        return f"| {name} | {' | '.join(cells)} |"


HEAD = "\n".join([f"| | {' | '.join(NAMES)} | first frame |", f"|{'---|' * (len(NAMES) + 2)}"])


def held_out(count: int = 64) -> list[Scene]:
    """Scenes that no training has seen."""
    return split_scenes()[1][:count]


def score(model: Path, scenes: list[Scene], work: Path, *overrides: str, with_images: bool = False) -> Scores:
    """Render a clip of every scene with `configs/demo.yaml` and `overrides`, and judge it.

    with_images: each clip continues the first frame of a drawn one.
    """
    images = [_first_frame(scene, number) for number, scene in enumerate(scenes)] if with_images else None
    clips = render(model, scenes, work, *overrides, images=images)
    seen = [look(frames_FHWC) for frames_FHWC in clips]
    decibels = None
    if images is not None:
        pairs = zip(clips, images, strict=True)
        decibels = float(np.mean([psnr(frames_FHWC[0], image_HWC) for frames_FHWC, image_HWC in pairs]))
    pairs = zip(clips, scenes, strict=True)
    clean = [is_clean(frames_FHWC, scene.colour, scene.background) for frames_FHWC, scene in pairs]
    shares = {name: _share(name, seen, scenes) for name in SEEN} | {"clean": float(np.mean(clean))}
    return Scores(shares, decibels)


def render(
    model: Path, scenes: list[Scene], work: Path, *overrides: str, images: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Frames uint8 [F, H, W, 3] of a clip per scene, from the videos that `wanray render` writes."""
    work.mkdir(parents=True, exist_ok=True)
    rows = {"id": [str(number) for number in range(len(scenes))], "prompt": [each.prompt for each in scenes]}
    rows |= {"seed": list(range(len(scenes)))}
    if images is not None:
        rows |= {"image": [{"bytes": _png(image_HWC, work / "image.png")} for image_HWC in images]}
    parquet.write_table(pa.table(rows), work / "scenes.parquet")
    given = [f"manifest={work}/scenes.parquet", f"output.url={work}/out", f"model.path={model}"]
    command = [
        sys.executable,
        "-m",
        "wanray",
        "render",
        CONFIG,
        *given,
        "defaults.prompt=null",
        "engine=local",
    ]
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)
    return [frames for _, frames in sorted(_videos(work / "out").items())]


def _videos(out: Path) -> dict[int, np.ndarray]:
    """By the number of the scene."""
    clips = {}
    for file in out.glob("clips/*/*/meta.json"):
        meta = json.loads(file.read_text())
        data = (out / meta["video"]["path"]).read_bytes()
        frames = list(read_frames(data, range(probe_video(data).num_frames)))
        clips |= {int(name): np.stack(frames) for name in meta["ids"]}
    return clips


def _first_frame(scene: Scene, number: int) -> np.ndarray:
    frames_FHWC = draw(scene, SIZE_PX, SIZE_PX, 9, np.random.default_rng((21, number)))
    return (frames_FHWC[0] * 255).round().astype(np.uint8)


def _png(image_HWC: np.ndarray, file: Path) -> bytes:
    Image.fromarray(image_HWC).save(file)
    return file.read_bytes()


def _share(name: str, seen: list[Seen], scenes: list[Scene]) -> float:
    pairs = zip(seen, scenes, strict=True)
    return float(np.mean([getattr(found, name) == getattr(scene, name) for found, scene in pairs]))
