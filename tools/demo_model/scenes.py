"""The world of the demo's models: one coloured shape that moves across a plain background.

A scene is what a prompt says of a clip; where the shape starts, how far it goes and how large it is exactly
are drawn at random. numpy only: tests draw and judge clips without torch.
"""

import itertools
import random
from dataclasses import dataclass, replace

import numpy as np

COLOURS = {
    "red": (222, 44, 44),
    "green": (40, 168, 76),
    "blue": (48, 84, 222),
    "yellow": (244, 212, 56),
    "purple": (152, 64, 196),
    "orange": (246, 142, 40),
    "white": (240, 240, 240),
    "black": (18, 18, 22),
}
BACKGROUNDS = {name: COLOURS[name] for name in ("white", "black", "blue", "green")} | {
    "gray": (128, 128, 132)
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
"""The way of the shape as (x, y); y points down."""
RADII = {"small": (0.13, 0.15), "": (0.13, 0.23), "big": (0.21, 0.23)}
"""Of the circle around the shape, in heights of the clip; a prompt need not name a size."""
TRAVEL = (0.36, 0.5)
"""How far the shape goes in a clip, in widths or heights of it."""
SQUARE, TRIANGLE = 0.88, 0.6
"""Half the square's side, and the circle within the triangle, in radii: all shapes look equally large."""
EDGE_PX = 2.0
"""Over so many pixels a shape's colour fades into the background."""
SYNONYMS = {
    "small": ("little", "tiny"),
    "big": ("large",),
    "gray": ("grey",),
    "circle": ("disc", "ball"),
    "square": ("box",),
    "moving": ("moves", "going"),
    "background": ("ground",),
}
SYNONYM_SHARE = 0.25
NUM_HELD_OUT = 64


@dataclass(frozen=True, slots=True)
class Scene:
    """What a prompt says."""

    colour: str
    shape: str
    direction: str
    background: str
    size: str = ""

    @property
    def prompt(self) -> str:
        """Such as `a small red circle moving right on a blue background`."""
        subject = f"{self.size} {self.colour} {self.shape}".strip()
        article = "an" if subject[0] in "aeiou" else "a"
        return f"{article} {subject} moving {self.direction} on a {self.background} background"

    def of_size(self, size: str) -> "Scene":
        """The same scene in a size that its prompt names."""
        return replace(self, size=size)

    def some_prompt(self, rng: np.random.Generator) -> str:
        """The prompt with a synonym here and there."""
        return " ".join(_word(word, rng) for word in self.prompt.split())


def all_scenes() -> list[Scene]:
    """Every scene that does not name a size."""
    names = itertools.product(COLOURS, SHAPES, DIRECTIONS, BACKGROUNDS)
    return [Scene(*each) for each in names if each[0] != each[3]]


def split_scenes() -> tuple[list[Scene], list[Scene]]:
    """Scenes to train on, and those held out: no clip of theirs, of any size, is ever trained on."""
    scenes = all_scenes()
    random.Random(8).shuffle(scenes)
    return scenes[NUM_HELD_OUT:], scenes[:NUM_HELD_OUT]


def words() -> list[str]:
    """Every word of the prompts, with synonyms, sorted."""
    texts = [scene.of_size(size).prompt for scene in all_scenes() for size in RADII]
    told = {word for text in texts for word in text.split()}
    return sorted(told | {other for others in SYNONYMS.values() for other in others})


def _word(word: str, rng: np.random.Generator) -> str:
    if word not in SYNONYMS or rng.random() >= SYNONYM_SHARE:
        return word
    return str(rng.choice(SYNONYMS[word]))


def draw(scene: Scene, width: int, height: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A clip of the scene, float32 [F, H, W, 3] in 0..1."""
    radius = height * rng.uniform(*RADII[scene.size])
    way_XY = np.array(DIRECTIONS[scene.direction], np.float64)
    size_XY = np.array([width, height], np.float64)
    travel_XY = way_XY * size_XY * rng.uniform(*TRAVEL)
    low_XY = radius + 1 - np.minimum(travel_XY, 0)
    high_XY = size_XY - radius - 1 - np.maximum(travel_XY, 0)
    start_XY = rng.uniform(np.minimum(low_XY, high_XY), np.maximum(low_XY, high_XY))
    centres_FXY = start_XY + np.linspace(0, 1, num_frames)[:, None] * travel_XY
    mask_FHW1 = _coverage(scene.shape, centres_FXY, radius, width, height)[..., None]
    colour, background = (
        np.array(rgb) / 255 for rgb in (COLOURS[scene.colour], BACKGROUNDS[scene.background])
    )
    return (background * (1 - mask_FHW1) + colour * mask_FHW1).astype(np.float32)


def _coverage(shape: str, centres_FXY: np.ndarray, radius: float, width: int, height: int) -> np.ndarray:
    """How much of each pixel the shape covers, [F, H, W] in 0..1, from the distance to its edge."""
    x_FHW = np.arange(width)[None, None] + 0.5 - centres_FXY[:, 0, None, None]
    y_FHW = np.arange(height)[None, :, None] + 0.5 - centres_FXY[:, 1, None, None]
    if shape == "circle":
        inside = radius - np.hypot(x_FHW, y_FHW)
    elif shape == "square":
        inside = SQUARE * radius - np.maximum(np.abs(x_FHW), np.abs(y_FHW))
    else:
        slopes = TRIANGLE * radius - (np.sqrt(3) * np.abs(x_FHW) - y_FHW) / 2
        inside = np.minimum(TRIANGLE * radius - y_FHW, slopes)
    return np.clip(inside / EDGE_PX + 0.5, 0, 1)
