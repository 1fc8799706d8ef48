"""The picture that stands for a clip: its middle frame as a JPEG. Nothing is stored here."""

import io
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

_JPEG_QUALITY = 90


class MiddleFrame:
    """Lets frames pass on their way to an encoder and keeps a copy of the middle one."""

    def __init__(self, num_frames: int) -> None:
        self._index = num_frames // 2
        self._frame_HWC: np.ndarray | None = None

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same frames, one at a time."""
        for index, frame_HWC in enumerate(frames):
            if index == self._index:
                self._frame_HWC = frame_HWC.copy()
            yield frame_HWC

    @property
    def frame(self) -> np.ndarray:
        """uint8 [height, width, 3]; there once the encoder has had all frames."""
        assert self._frame_HWC is not None, f"fewer than {self._index + 1} frames have passed"
        return self._frame_HWC


def encode_poster(frame_HWC: np.ndarray) -> bytes:
    """One uint8 frame as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
