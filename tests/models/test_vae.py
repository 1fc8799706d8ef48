"""The VAE gives what diffusers' own calls give, one group of frames at a time."""

import inspect

import pytest
import torch
from diffusers import AutoencoderKLWan

from wanray.models.vae import _num_cached, decode_latents, decode_stream, encode_video, to_uint8

NAMES = ("t2v-1.3b", "ti2v-5b")
"""One model per VAE: Wan2.1's and Wan2.2's."""


@pytest.fixture(params=NAMES)
def vae(request, tiny):
    return AutoencoderKLWan.from_pretrained(tiny(request.param) / "vae").eval()


def random_latents(vae, frames, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, vae.config.z_dim, frames, height, width, generator=generator)


def statistics(vae):
    """Mean and 1 / deviation, as diffusers' pipelines write them."""
    mean = torch.tensor(vae.config.latents_mean).view(1, vae.config.z_dim, 1, 1, 1)
    return mean, 1.0 / torch.tensor(vae.config.latents_std).view(1, vae.config.z_dim, 1, 1, 1)


@torch.inference_mode()
def diffusers_decode(vae, latents):
    mean, inverse = statistics(vae)
    video = vae.decode(latents / inverse + mean, return_dict=False)[0]
    return (video[0].permute(1, 0, 2, 3) * 0.5 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_stream_equals_the_whole_decode(vae, frames):
    latents = random_latents(vae, frames, 4, 6)
    groups = list(decode_stream(vae, latents))
    assert [len(group) for group in groups] == [1] + [4] * (frames - 1)
    assert torch.equal(torch.cat(groups), diffusers_decode(vae, latents))
    assert torch.equal(decode_latents(vae, latents), torch.cat(groups))


def test_two_streams_at_once_do_not_mix(vae):
    first, second = (random_latents(vae, 3, 4, 4, seed) for seed in (1, 2))
    pairs = list(zip(decode_stream(vae, first), decode_stream(vae, second), strict=True))
    assert torch.equal(torch.cat([pair[0] for pair in pairs]), diffusers_decode(vae, first))
    assert torch.equal(torch.cat([pair[1] for pair in pairs]), diffusers_decode(vae, second))


@pytest.mark.parametrize("size_px", [(64, 64), (64, 96), (112, 96)], ids=str)
def test_tiles_equal_those_of_diffusers(vae, size_px):
    """The first size fits one tile; the others make tiles that are cut off at the right and at the bottom."""
    cell = vae.spatial_compression_ratio
    latents = random_latents(vae, 2, size_px[0] // cell, size_px[1] // cell)
    whole = diffusers_decode(vae, latents)
    vae.enable_tiling(64, 64, 48, 48)
    expected = diffusers_decode(vae, latents)
    vae.use_tiling = False
    groups = list(decode_stream(vae, latents, tiling=True))
    assert [len(group) for group in groups] == [1, 4]
    assert torch.equal(torch.cat(groups), expected)
    assert torch.equal(torch.cat(groups), whole) == (size_px == (64, 64))


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_latents_equal_those_of_the_pipelines(vae, frames):
    generator = torch.Generator().manual_seed(3)
    video = torch.rand(1, 3, frames, 64, 32, generator=generator) * 2 - 1
    mean, inverse = statistics(vae)
    with torch.inference_mode():
        expected = (vae.encode(video).latent_dist.mode() - mean) * inverse
    latents = encode_video(vae, video)
    assert torch.equal(latents, expected)
    assert latents.dtype == torch.float32
    assert latents.shape[2] == (frames - 1) // 4 + 1


def test_what_is_private_to_diffusers_is_as_it_was(vae):
    """If this fails, read `AutoencoderKLWan._decode` and `tiled_decode` again."""
    assert list(inspect.signature(vae.decoder.forward).parameters) == [
        "x",
        "feat_cache",
        "feat_idx",
        "first_chunk",
    ]
    assert _num_cached(vae) == vae._cached_conv_counts["decoder"]
    tiles = [getattr(vae, f"tile_sample_{what}") for what in ("min_height", "min_width")]
    strides = [getattr(vae, f"tile_sample_{what}") for what in ("stride_height", "stride_width")]
    assert (tiles, strides) == ([256, 256], [192, 192])


def test_bytes_are_truncated():
    frames = torch.tensor([0.0, 0.5, 254.9 / 255, 1.0]).view(1, 1, 2, 2).expand(2, 3, 2, 2)
    assert to_uint8(frames)[1, :, :, 2].tolist() == [[0, 127], [254, 255]]
    assert to_uint8(frames).shape == (2, 2, 2, 3)
