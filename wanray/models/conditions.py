"""What steers a request besides text: images, source video, mask and references as tensors.

Made once per request, away from the GPUs that denoise. Shape suffixes: B batch (1), C channels, F frames,
T latent frames, H, W height and width, N images, L image tokens, D their width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from wanray.checkpoint import Component
from wanray.models.load import load_network
from wanray.models.pixels import DiffusersPixels, OfficialPixels, Pixels
from wanray.models.vae import encode_video
from wanray.records import Request
from wanray.registry import Model


@dataclass(frozen=True, slots=True)
class Inputs:
    """A request's media, decoded: uint8 RGB arrays [H, W, C]."""

    images: dict[str, tuple[np.ndarray, ...]]
    """By column, in the manifest's order."""
    frames: Iterable[np.ndarray] | None = None
    """Of the source video, as many as the clip has; taken once."""
    mask: Iterable[np.ndarray] | None = None
    """As many, or one for all."""


Conditions = dict[str, torch.Tensor]
"""`image_features` [N, L, D]; `image_latents` [1, C, T, H, W] (mask and latents, channels of the input);
`first_latents` [1, C, 1, H, W] (they replace the first latent frame); `control` [1, C, T, H, W]."""


class ConditionEncoder:
    """VAE and image encoder, with the preprocessing of one mode. Both compute in float32."""

    def __init__(
        self, vae: Component, image_encoder: Component | None, pixels: Pixels, model: Model, device: str
    ) -> None:
        aligned = isinstance(pixels, OfficialPixels)
        self.vae = load_network(vae, torch.float32, device, aligned=aligned)
        self.image_encoder: Any = image_encoder and load_network(
            image_encoder, torch.float32, device, aligned=aligned
        )
        self.pixels, self.model, self.device = pixels, model, device

    @torch.inference_mode()
    def encode(self, request: Request, inputs: Inputs) -> Conditions:
        """All that the request's task needs; empty for text to video."""
        size = (request.width, request.height)
        if request.task == "vace":
            return {"control": self._control(request, inputs, size)}
        images = [inputs.images[name][0] for name in ("image", "last_image") if name in inputs.images]
        if not images:
            return {}
        if self.model.has_token_timesteps:
            first_CHW = self.pixels.covering_image(images[0], size)
            return {"first_latents": self._latents(first_CHW[:, None])}
        conditions = {"image_latents": self._image_latents(images, request)}
        if self.image_encoder is not None:
            conditions["image_features"] = self._features(images)
        return conditions

    def _features(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """The image encoder's states before its last block (official: `clip.py`, `use_31_block`)."""
        pixels_NCHW = self.pixels.features(images, self.image_encoder.config.image_size)
        states = self.image_encoder(pixels_NCHW.to(self.device), output_hidden_states=True).hidden_states
        return states[-2]

    def _image_latents(self, images: Sequence[np.ndarray], request: Request) -> torch.Tensor:
        """Mask and latents of a video that has the first image, the last one if given, and zeros between.

        The mask has a channel for each frame of a latent frame; the first frame fills its latent frame.
        """
        size = (request.width, request.height)
        ends = [self.pixels.image(rgb_HWC, size)[:, None] for rgb_HWC in images]
        gap_CFHW = ends[0].new_zeros(3, request.num_frames - len(ends), *size[::-1])
        latents_BCTHW = self._latents(torch.cat([ends[0], gap_CFHW, *ends[1:]], dim=1))
        known_F = torch.zeros(request.num_frames, device=self.device)
        known_F[[0, -1][: len(ends)]] = 1
        known_F = torch.cat([known_F[:1].repeat(self.model.temporal_stride - 1), known_F])
        known_CT = known_F.view(-1, self.model.temporal_stride).T
        mask_BCTHW = known_CT[None, :, :, None, None].expand(-1, -1, -1, *latents_BCTHW.shape[3:])
        return torch.cat([mask_BCTHW, latents_BCTHW], dim=1)

    def _control(self, request: Request, inputs: Inputs, size: tuple[int, int]) -> torch.Tensor:
        """Kept and changed parts of the video, as latents, and the mask; references stand before the video.

        Official: `vace.py`, vace_encode_frames, vace_encode_masks, vace_latent.
        """
        video_CFHW, mask_CFHW = self._video_and_mask(request, inputs, size)
        binary_CFHW = (mask_CFHW > 0.5).float()
        latents = [self._latents(video_CFHW * (1 - binary_CFHW)), self._latents(video_CFHW * binary_CFHW)]
        frames = [torch.cat(latents, dim=1)]
        references = self.pixels.references(inputs.images.get("reference_images", ()), size)
        for reference_CHW in reversed(references):
            latents_BCTHW = self._latents(reference_CHW[:, None])
            frames.insert(0, torch.cat([latents_BCTHW, torch.zeros_like(latents_BCTHW)], dim=1))
        mask_BCTHW = _unshuffled(mask_CFHW, self.model).to(self.device)
        blank_BCTHW = mask_BCTHW.new_zeros(*mask_BCTHW.shape[:2], len(references), *mask_BCTHW.shape[3:])
        mask_BCTHW = torch.cat([blank_BCTHW, mask_BCTHW], dim=2)
        return torch.cat([torch.cat(frames, dim=2), mask_BCTHW], dim=1)

    def _video_and_mask(
        self, request: Request, inputs: Inputs, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Source video [C, F, H, W] and mask, 1 where to generate; grey where there is no source."""
        shape = (request.num_frames, *size[::-1])
        if inputs.frames is not None:
            mask_CFHW = torch.ones(1, *shape) if inputs.mask is None else self.pixels.mask(inputs.mask, size)
            return self.pixels.frames(inputs.frames, size), mask_CFHW.expand(-1, *shape)
        video_CFHW, mask_CFHW = torch.zeros(3, *shape), torch.ones(1, *shape)
        for index, rgb_HWC in _key_images(request, inputs):
            video_CFHW[:, index] = self.pixels.frames([rgb_HWC], size)[:, 0]
            mask_CFHW[:, index] = 0
        return video_CFHW, mask_CFHW

    def _latents(self, video_CFHW: torch.Tensor) -> torch.Tensor:
        return encode_video(self.vae, video_CFHW[None].to(self.device))


def make_pixels(mode: str, model: Model, image_processor: str | None) -> Pixels:
    """The preprocessing that `numerics.mode` asks for."""
    if mode == "official":
        return OfficialPixels()
    return DiffusersPixels(model.spatial_stride, image_processor)


def _key_images(request: Request, inputs: Inputs) -> list[tuple[int, np.ndarray]]:
    """(frame, image) of all images that stand for a frame."""
    ends = [(frame, name) for name, frame in (("image", 0), ("last_image", -1)) if name in inputs.images]
    keys = zip(request.key_frames, inputs.images.get("key_images", ()), strict=True)
    return [(frame, inputs.images[name][0]) for frame, name in ends] + list(keys)


def _unshuffled(mask_CFHW: torch.Tensor, model: Model) -> torch.Tensor:
    """The mask's first channel at the latents' size: the pixels of a latent cell become channels."""
    stride = model.spatial_stride
    frames, height, width = mask_CFHW.shape[1:]
    cells = mask_CFHW[0].reshape(frames, height // stride, stride, width // stride, stride)
    mask_BCFHW = cells.permute(2, 4, 0, 1, 3).flatten(0, 1)[None]
    latent_frames = (frames - 1) // model.temporal_stride + 1
    return interpolate(mask_BCFHW, size=(latent_frames, *mask_BCFHW.shape[3:]), mode="nearest-exact")
