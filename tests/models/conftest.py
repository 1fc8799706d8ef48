"""Media that several files of model tests render from."""

import numpy as np
import pytest
from PIL import Image

from wanray.config import VideoConfig
from wanray.sinks.video import encode_frames


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Two pictures of one aspect and another, a video and its mask."""
    folder, random = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    for name, size in {"first": (80, 60), "last": (120, 90), "reference": (50, 70)}.items():
        values = random.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    moving = [np.roll(random.integers(0, 256, (64, 64, 3), np.uint8), 3 * i, 1) for i in range(9)]
    for name, frames in {
        "video": moving,
        "mask": [255 * (frame[..., :1] > 99).repeat(3, 2) for frame in moving],
    }.items():
        encoded = encode_frames([frame.astype(np.uint8) for frame in frames], 16.0, VideoConfig(crf=1), {})
        (content,) = encoded.files.values()
        (folder / f"{name}.mp4").write_bytes(content)
    return folder
