"""Video to latents and back through Wan's VAE, in float32; decoding one latent frame at a time.

The only file that knows the insides of `AutoencoderKLWan`: its decoder's feature cache and its tiles. Loads
nothing. Shape suffixes: B batch (1), C channels, F frames, T latent frames, H, W height and width.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from torch.utils.flop_counter import FlopCounterMode

from wanray.models.spread import ahead, spread

TRIAL_CELLS = 8
"""Side of the latents that are decoded to learn what each block of the decoder costs."""


@torch.inference_mode()
def encode_video(vae: AutoencoderKLWan, video_BCFHW: torch.Tensor) -> torch.Tensor:
    """Normalised latents float32 [1, C, T, H, W] of one video [1, 3, F, H, W] in -1..1.

    The posterior's mean, not a sample: `(mean - latents_mean) * (1 / latents_std)`, the form whose rounding
    both the official code (`wan/modules/vae.py`, `encode`) and diffusers share.
    """
    posterior = vae.encode(video_BCFHW.to(vae.device, vae.dtype), return_dict=False)[0]
    latents_BCTHW = posterior.mode()
    mean_BCTHW, inverse_BCTHW = _statistics(vae, latents_BCTHW)
    return (latents_BCTHW - mean_BCTHW) * inverse_BCTHW


@torch.inference_mode()
def decode_stream(
    vae: AutoencoderKLWan, latents_BCTHW: torch.Tensor, tiling: bool = False
) -> Iterator[torch.Tensor]:
    """Yield the frames of one clip's normalised latents [1, C, T, H, W], float32 [F, 3, H, W] in 0..1.

    One frame for the first latent frame, four for each further one; equal to `vae.decode` of the whole, bit
    for bit, but its memory does not grow with the number of frames. With `tiling`, equal to it after
    `vae.enable_tiling()`: the device holds one tile at a time, the host all decoded tiles, and the first
    frames come after the last tile.
    """
    latents_BCTHW = latents_BCTHW.to(vae.device, vae.dtype)
    mean_BCTHW, inverse_BCTHW = _statistics(vae, latents_BCTHW)
    latents_BCTHW = latents_BCTHW / inverse_BCTHW + mean_BCTHW
    decode = _decode_tiles if tiling and _exceeds_tile(vae, latents_BCTHW) else _decode_whole
    for patches_BCFHW in decode(vae, latents_BCTHW):
        video_BCFHW = unpatchify(patches_BCFHW, patch_size=vae.config["patch_size"] or 1)
        yield (video_BCFHW[0].clamp(-1, 1).permute(1, 0, 2, 3) * 0.5 + 0.5).clamp(0, 1)


def decode_latents(vae: AutoencoderKLWan, latents_BCTHW: torch.Tensor) -> torch.Tensor:
    """All frames of `decode_stream` at once, [F, 3, H, W]."""
    return torch.cat(list(decode_stream(vae, latents_BCTHW)))


def spread_decoder(vae: Any, devices: Sequence[str]) -> None:
    """Divide the decoder among `devices`, on the first of which `vae` is: equal frames, sooner.

    Each device holds some blocks and their caches, and works on a group of frames while the next device has
    that before it.
    """
    parts = _parts(vae.decoder)
    spread(parts, _costs(vae, parts), devices)


def _parts(decoder: Any) -> list[list[Any]]:
    """The modules of the decoder in order; those between which a block adds what it kept are one part."""
    parts = [[decoder.conv_in], [decoder.mid_block]]
    for block in decoder.up_blocks:
        parts += [[resnet] for resnet in block.resnets]
        ends = [*(getattr(block, "upsamplers", None) or ())]  # Wan2.1's; the next two are Wan2.2's
        ends += [getattr(block, name, None) for name in ("upsampler", "avg_shortcut")]
        parts.append([module for module in ends if module is not None])
    return [*parts, [decoder.norm_out], [decoder.conv_out]]


@torch.inference_mode()
def _costs(vae: Any, parts: Sequence[Sequence[torch.nn.Module]]) -> list[float]:
    """FLOPs of each part for two latent frames."""
    latents_BCTHW = torch.zeros(1, vae.config["z_dim"], 2, TRIAL_CELLS, TRIAL_CELLS, device=vae.device)
    modules = [module for part in parts for module in part]
    spent = dict.fromkeys(modules, 0.0)
    with FlopCounterMode(display=False) as counter:

        def begin(module: torch.nn.Module, *_: object) -> None:
            spent[module] -= counter.get_total_flops()

        def end(module: torch.nn.Module, *_: object) -> None:
            spent[module] += counter.get_total_flops()

        hooks = [module.register_forward_pre_hook(begin) for module in modules]
        hooks += [module.register_forward_hook(end) for module in modules]
        deque(_decode_frames(vae, latents_BCTHW.split(1, dim=2)), maxlen=0)
    for hook in hooks:
        hook.remove()
    return [sum(spent[module] for module in part) for part in parts]


def to_uint8(frames_FCHW: torch.Tensor) -> torch.Tensor:
    """Frames 0..1 as uint8 [F, H, W, C] on the CPU, truncated as the official `cache_video` does."""
    return (frames_FCHW * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


def _statistics(vae: AutoencoderKLWan, like_BCTHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / standard deviation of the latents, both [1, C, 1, 1, 1]."""
    mean_BCTHW = torch.tensor(vae.config["latents_mean"]).view(1, -1, 1, 1, 1).to(like_BCTHW)
    return mean_BCTHW, 1.0 / torch.tensor(vae.config["latents_std"]).view(1, -1, 1, 1, 1).to(like_BCTHW)


def _decode_whole(vae: AutoencoderKLWan, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
    return _decode_frames(vae, vae.post_quant_conv(latents_BCTHW).split(1, dim=2))


def _decode_frames(vae: AutoencoderKLWan, frames_BCTHW: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The decoder's outputs [1, C, F, H, W] for latent frames [1, C, 1, H, W] after `post_quant_conv`.

    The cache holds, per causal convolution, the last two frames of its input.
    """
    cache: list[torch.Tensor | str | None] = [None] * _num_cached(vae)
    videos_BCFHW = (
        vae.decoder(frame_BCTHW, feat_cache=cache, feat_idx=[0], first_chunk=index == 0)
        for index, frame_BCTHW in enumerate(frames_BCTHW)
    )
    is_spread = vae.decoder.conv_out.weight.device != vae.decoder.conv_in.weight.device
    return ahead(videos_BCFHW) if is_spread else videos_BCFHW


def _num_cached(vae: AutoencoderKLWan) -> int:
    return sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())


def _exceeds_tile(vae: Any, latents_BCTHW: torch.Tensor) -> bool:
    height, width = (size * vae.spatial_compression_ratio for size in latents_BCTHW.shape[-2:])
    return height > vae.tile_sample_min_height or width > vae.tile_sample_min_width


def _decode_tiles(vae: Any, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
    """As `_decode_whole`, from overlapping tiles of the sizes that the VAE carries, tile after tile.

    Not all tiles frame after frame: their caches together are larger than that of the whole (13 GiB against
    8 at 1280x720), while the decoded tiles take 17 MiB of host memory per frame of that size.
    """
    cell, patch = vae.spatial_compression_ratio, vae.config["patch_size"] or 1
    sizes = (vae.tile_sample_min_height, vae.tile_sample_min_width)
    strides = (vae.tile_sample_stride_height, vae.tile_sample_stride_width)
    height, width = latents_BCTHW.shape[-2:]

    def decode_tile(y: int, x: int) -> deque[torch.Tensor]:
        cells_BCTHW = latents_BCTHW[..., y : y + sizes[0] // cell, x : x + sizes[1] // cell]
        frames_BCTHW = (vae.post_quant_conv(frame_BCTHW) for frame_BCTHW in cells_BCTHW.split(1, dim=2))
        return deque(video_BCFHW.cpu() for video_BCFHW in _decode_frames(vae, frames_BCTHW))

    corners = [range(0, height, strides[0] // cell), range(0, width, strides[1] // cell)]
    rows = [[decode_tile(y, x) for x in corners[1]] for y in corners[0]]
    steps = (strides[0] // patch, strides[1] // patch)
    overlaps = (sizes[0] // patch - steps[0], sizes[1] // patch - steps[1])
    for _ in range(latents_BCTHW.shape[2]):
        tiles_BCFHW = [[tile.popleft().to(vae.device) for tile in row] for row in rows]
        video_BCFHW = _blend(vae, tiles_BCFHW, overlaps, steps)
        yield video_BCFHW[..., : height * cell // patch, : width * cell // patch]


def _blend(
    vae: AutoencoderKLWan, rows: list[list[torch.Tensor]], overlaps: tuple[int, int], steps: tuple[int, int]
) -> torch.Tensor:
    """Join tiles [1, C, F, H, W]: each fades in, in place, over the ones above it and to its left."""
    for y, row in enumerate(rows):
        for x, tile_BCFHW in enumerate(row):
            if y > 0:
                vae.blend_v(rows[y - 1][x], tile_BCFHW, overlaps[0])
            if x > 0:
                vae.blend_h(row[x - 1], tile_BCFHW, overlaps[1])
    return torch.cat(
        [torch.cat([tile[..., : steps[0], : steps[1]] for tile in row], dim=-1) for row in rows], dim=-2
    )
