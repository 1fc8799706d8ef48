"""From decoded images and frames to what VAE, image encoder and control branch take.

One class per flavour of preprocessing: the official code's, and that of diffusers' pipelines. Shape suffixes:
C channels, F frames, H height, W width, N images; `rgb_HWC` are uint8 arrays, all else is float32 in -1..1
but masks, which are 0..1 (1: to be generated).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch.nn.functional import interpolate
from transformers import CLIPImageProcessorPil

from wanray.sizing import cover, reference_fit

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Size = tuple[int, int]
"""Width, height."""


class Pixels(Protocol):
    """How pixels are prepared."""

    def image(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        """An image of image to video [C, H, W], stretched to `size`."""
        ...

    def covering_image(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        """The same for TI2V, whose image covers `size` and is cut."""
        ...

    def features(self, images: Sequence[np.ndarray], image_size: int) -> torch.Tensor:
        """What the image encoder sees of the images [N, C, H, W]."""
        ...

    def frames(self, frames: Iterable[np.ndarray], size: Size) -> torch.Tensor:
        """A source video [C, F, H, W]."""
        ...

    def mask(self, frames: Iterable[np.ndarray], size: Size) -> torch.Tensor:
        """A mask video [1 or C, F, H, W]."""
        ...

    def references(self, images: Sequence[np.ndarray], size: Size) -> list[torch.Tensor]:
        """Reference images [C, H, W] on white canvases, in the order in which they stand before the video."""
        ...


class OfficialPixels:
    """As `image2video.py`, `first_last_frame2video.py`, `textimage2video.py` and `vace.py`."""

    def image(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        """Bicubic, without antialias, crop or clamp."""
        image_CHW = _to_tensor(rgb_HWC)
        return interpolate(image_CHW[None], size=size[::-1], mode="bicubic")[0]

    def covering_image(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        """Lanczos, then the middle."""
        image = Image.fromarray(rgb_HWC)
        resized, (left, top) = cover(image.size, size)
        image = image.resize(resized, Image.Resampling.LANCZOS)
        return _to_tensor(np.asarray(image.crop((left, top, left + size[0], top + size[1]))))

    def features(self, images: Sequence[np.ndarray], image_size: int) -> torch.Tensor:
        """Each image squashed to a square."""
        squares = [
            interpolate(_to_tensor(rgb_HWC)[None], size=(image_size, image_size), mode="bicubic")
            for rgb_HWC in images
        ]
        mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return (torch.cat(squares) * 0.5 + 0.5 - mean_C11) / std_C11

    def frames(self, frames: Iterable[np.ndarray], size: Size) -> torch.Tensor:
        """Cover and cut; bicubic with antialias, on 8 bits as officially."""
        return torch.stack([_cover(frame, size) for frame in frames], dim=1).float() / 127.5 - 1

    def mask(self, frames: Iterable[np.ndarray], size: Size) -> torch.Tensor:
        """The first channel, resized as the video is."""
        return ((self.frames(frames, size)[:1] + 1) / 2).clamp(0, 1)

    def references(self, images: Sequence[np.ndarray], size: Size) -> list[torch.Tensor]:
        """Scaled to fit, bilinear, in the given order."""
        return [self._reference(rgb_HWC, size) for rgb_HWC in images]

    def _reference(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        image_CHW = _to_tensor(rgb_HWC)
        height, width = rgb_HWC.shape[:2]
        fit = reference_fit(width, height, *size)
        if not fit.resized:
            return image_CHW
        width, height = fit.pasted_size
        left, top = fit.pasted_at
        canvas_CHW = torch.ones(3, *size[::-1])
        resized_NCHW = interpolate(
            image_CHW[None], size=(height, width), mode="bilinear", align_corners=False
        )
        canvas_CHW[:, top : top + height, left : left + width] = resized_NCHW[0]
        return canvas_CHW


class DiffusersPixels:
    """As WanImageToVideoPipeline and WanVACEPipeline of diffusers, the reversed references included."""

    def __init__(self, spatial_stride: int, image_processor: str | None) -> None:
        self.processor: Any = VideoProcessor(vae_scale_factor=spatial_stride)
        self.clip: Any = None
        if image_processor is not None:
            self.clip = CLIPImageProcessorPil.from_pretrained(image_processor, local_files_only=True)

    def image(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        """Lanczos, stretched."""
        width, height = size
        return self.processor.preprocess(Image.fromarray(rgb_HWC), height=height, width=width)[0].float()

    def covering_image(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        """Stretched too."""
        return self.image(rgb_HWC, size)

    def features(self, images: Sequence[np.ndarray], image_size: int) -> torch.Tensor:
        """The checkpoint's own image processor: the middle of each image, as a rule."""
        assert self.clip, "a model with an image encoder has an image processor"
        pictures = [Image.fromarray(rgb_HWC) for rgb_HWC in images]
        return self.clip(images=pictures, return_tensors="pt").pixel_values

    def frames(self, frames: Iterable[np.ndarray], size: Size) -> torch.Tensor:
        """Lanczos, stretched."""
        width, height = size
        pictures = [Image.fromarray(frame) for frame in frames]
        return self.processor.preprocess_video(pictures, height, width)[0].float()

    def mask(self, frames: Iterable[np.ndarray], size: Size) -> torch.Tensor:
        """All channels."""
        return torch.clamp((self.frames(frames, size) + 1) / 2, min=0, max=1)

    def references(self, images: Sequence[np.ndarray], size: Size) -> list[torch.Tensor]:
        """Rounded down to the VAE's stride, scaled to fit; the last one ends up first."""
        return [self._reference(rgb_HWC, size) for rgb_HWC in reversed(images)]

    def _reference(self, rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
        width, height = size
        image_NCHW = self.processor.preprocess(Image.fromarray(rgb_HWC), None, None)
        scale = min(height / image_NCHW.shape[2], width / image_NCHW.shape[3])
        new = int(image_NCHW.shape[2] * scale), int(image_NCHW.shape[3] * scale)
        resized_CHW = interpolate(image_NCHW, size=new, mode="bilinear", align_corners=False)[0]
        top, left = (height - new[0]) // 2, (width - new[1]) // 2
        canvas_CHW = torch.ones(3, height, width)
        canvas_CHW[:, top : top + new[0], left : left + new[1]] = resized_CHW
        return canvas_CHW


def _to_tensor(rgb_HWC: np.ndarray) -> torch.Tensor:
    """[C, H, W] in -1..1."""
    image_CHW = torch.from_numpy(np.array(rgb_HWC)).permute(2, 0, 1)
    return (image_CHW.float() / 255 - 0.5) / 0.5


def _cover(rgb_HWC: np.ndarray, size: Size) -> torch.Tensor:
    """uint8 [C, H, W]: resized until it covers `size`, then the middle of it."""
    width, height = size
    frame_CHW = torch.from_numpy(np.array(rgb_HWC)).permute(2, 0, 1)
    if frame_CHW.shape[1:] == (height, width):
        return frame_CHW
    resized, (left, top) = cover((frame_CHW.shape[2], frame_CHW.shape[1]), size)
    resized_CHW = interpolate(frame_CHW[None], size=resized[::-1], mode="bicubic", antialias=True)[0]
    return resized_CHW[:, top : top + height, left : left + width]
