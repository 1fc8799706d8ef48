"""A network divided among several devices computes what it computes on one.

Machines without GPUs have two kinds of device, `cpu` and `meta`; a tensor that is not moved from one to the
other is an error of torch's.
"""

import pytest
import torch
from diffusers import AutoencoderKLWan

from wanray.checkpoint import open_checkpoint
from wanray.engine.pipeline import worker_for
from wanray.models.spread import _cuts, ahead
from wanray.models.text import TextEncoder
from wanray.models.vae import _costs, _decode_whole, _parts, decode_latents, decode_stream, spread_decoder

TEXTS = ["a cat", "", "cat " * 63, "cat " * 200]


@pytest.fixture(params=["t2v-1.3b", "ti2v-5b"])
def vae(request, tiny):
    return AutoencoderKLWan.from_pretrained(tiny(request.param) / "vae").eval()


def random_latents(vae, frames=3, side=6):
    return torch.randn(1, vae.config.z_dim, frames, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tiling", [False, True])
@pytest.mark.parametrize("number", [2, 3, 20])
def test_a_spread_decoder_gives_the_same_frames(vae, number, tiling):
    latents = random_latents(vae)
    vae.enable_tiling(64, 64, 48, 48)
    expected = torch.cat(list(decode_stream(vae, latents, tiling)))
    spread_decoder(vae, ["cpu"] * number)
    assert torch.equal(torch.cat(list(decode_stream(vae, latents, tiling))), expected)


def test_each_device_holds_blocks_of_the_decoder(vae):
    shapes = [video.shape for video in _decode_whole(vae, random_latents(vae))]
    spread_decoder(vae, ["cpu", "meta"])
    where = [tensor.device.type for tensor in vae.decoder.parameters()]
    assert where == sorted(where)
    assert {*where} == {"cpu", "meta"}
    videos = list(_decode_whole(vae, random_latents(vae)))
    assert [video.shape for video in videos] == shapes
    assert {video.device.type for video in videos} == {"meta"}


def test_a_spread_decoder_works_on_two_groups_of_frames_at_once(vae, monkeypatch):
    spread_decoder(vae, ["cpu", "meta"])
    begun = []
    vae.decoder.conv_in.register_forward_pre_hook(lambda *_: begun.append(len(begun)))
    seen = []
    for _ in _decode_whole(vae, random_latents(vae, frames=4)):
        seen.append(len(begun))
    assert seen == [2, 3, 4, 4]


def test_costs_are_those_of_convolutions(vae):
    """The last blocks work on the most pixels; looking at costs leaves no trace."""
    decoder = vae.decoder
    latents = random_latents(vae)
    before = decode_latents(vae, latents)
    parts = _parts(decoder)
    told = {id(tensor) for part in parts for module in part for tensor in module.parameters()}
    assert told == {id(tensor) for tensor in decoder.parameters()}
    costs = _costs(vae, parts)
    positions = 2 * 8 * 8
    assert costs[0] == 2 * decoder.conv_in.weight.numel() * positions
    assert costs[-1] == 2 * decoder.conv_out.weight.numel() * 5 * (8 * 2 ** (len(decoder.up_blocks) - 1)) ** 2
    assert sum(costs[2:-2]) > 0.7 * sum(costs)
    assert torch.equal(decode_latents(vae, latents), before)


def test_cuts_are_even():
    assert _cuts([1, 1, 1, 1], 2) == (2,)
    assert _cuts([1, 1, 1, 9], 2) == (3,)
    assert _cuts([5, 1, 1, 1, 5], 3) == (1, 4)
    assert _cuts([1], 1) == ()


def test_ahead_begins_one_more():
    begun = []

    def items():
        for number in range(3):
            begun.append(number)
            yield number

    assert [(item, len(begun)) for item in ahead(items())] == [(0, 2), (1, 3), (2, 3)]
    assert not list(ahead([]))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_spread_text_encoder_gives_the_same_embeddings(tiny, dtype, int8):
    checkpoint = open_checkpoint(tiny("t2v-1.3b"))
    arguments = (checkpoint.text_encoder, checkpoint.tokenizer, dtype, "cpu", True, int8)
    expected = TextEncoder(*arguments).encode_all(TEXTS)
    found = TextEncoder(*arguments, devices=["cpu", "cpu"]).encode_all(TEXTS)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.text_LD, other.text_LD)


@pytest.mark.parametrize("int8", [False, True])
def test_each_device_holds_layers_of_the_text_encoder(tiny, int8):
    checkpoint = open_checkpoint(tiny("t2v-1.3b"))
    arguments = (checkpoint.text_encoder, checkpoint.tokenizer, torch.float32, "cpu")
    spread = TextEncoder(*arguments, int8=int8, devices=["cpu", "meta"])
    states = spread.encoder(torch.zeros(1, 64, dtype=torch.long), torch.ones(1, 64)).last_hidden_state
    assert states.device.type == "meta"
    tensors = spread.encoder.encoder.state_dict()
    where = {name: tensor.device.type for name, tensor in tensors.items()}
    assert where["embed_tokens.weight"] == "cpu"
    assert where["final_layer_norm.weight"] == "meta"
    for block in range(len(spread.encoder.encoder.block)):
        assert len({device for name, device in where.items() if name.startswith(f"block.{block}.")}) == 1


def test_a_worker_knows_its_gpus():
    assert worker_for({"GPU": 2.0, "CPU": 3.0}).devices == ("cuda:0", "cuda:1")
    assert worker_for({"GPU": 1.0}).devices == ("cuda",)
    assert worker_for({"GPU": 0.25}).devices == ("cuda",)
    assert worker_for({"CPU": 2.0}).devices == ("cpu",)
