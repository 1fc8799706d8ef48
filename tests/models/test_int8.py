"""Int8 weights in the text encoder: how small, how exact, what stays, the same bits in any company."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from wanray.checkpoint import open_checkpoint
from wanray.errors import ConfigError
from wanray.models.int8 import Int8Linear, load_int8, quantise
from wanray.models.load import load_network
from wanray.models.state import DTYPES
from wanray.models.text import TextEncoder
from wanray.sinks.cache import Cache
from wanray.sizing import TEXT_BUCKETS
from wanray.stage import Worker
from wanray.stages.configs import EncodeConfig
from wanray.stages.encode import Encode
from wanray.stages.kept import place

TEXTS = ["a cat", "", "cat " * 63, "dog " * 64, "a red ship on the sea " * 30, "cat " * 600, "a dog"]
MAX_ERROR = {"float32": 0.014, "bfloat16": 0.016}
"""Relative error against float32; measured: 0.0101 and 0.0115 (bfloat16 without int8: 0.0064)."""


@pytest.fixture(scope="module")
def load(tiny):
    checkpoint = open_checkpoint(tiny("t2v-1.3b"))

    def make(dtype="float32", **options):
        return TextEncoder(checkpoint.text_encoder, checkpoint.tokenizer, DTYPES[dtype], "cpu", **options)

    return make


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return request.param


def layers(encoder, kind):
    return {name: module for name, module in encoder.encoder.named_modules() if isinstance(module, kind)}


def test_the_error_is_as_measured(load, dtype):
    exact, found = (
        torch.cat([item.text_LD.double() for item in encoder.encode_all(TEXTS)])
        for encoder in (load(), load(dtype, int8=True))
    )
    error = ((found - exact).norm() / exact.norm()).item()
    assert 1e-4 < error < MAX_ERROR[dtype]


def test_linear_layers_take_a_quarter_of_the_memory(load, dtype):
    linear, small = layers(load(), torch.nn.Linear), layers(load(dtype, int8=True), Int8Linear)
    assert small.keys() == linear.keys()
    assert len(small) == 2 * 7
    for name, layer in small.items():
        assert layer.weight.dtype == torch.int8
        assert layer.scale.dtype == torch.float32
        assert layer.weight.nbytes * 4 == linear[name].weight.nbytes
        assert layer.scale.shape == linear[name].weight.shape[:1]
        assert not list(layer.parameters())


def test_weights_are_off_by_half_a_step_at_most(load):
    encoder, small = load(), layers(load(int8=True), Int8Linear)
    for name, linear in layers(encoder, torch.nn.Linear).items():
        scale_O1 = small[name].scale[:, None]
        off_OI = (small[name].weight * scale_O1 - linear.weight).abs()
        assert (off_OI <= 0.5001 * scale_O1).all(), name
        assert (small[name].weight.abs().amax(1) == 127).all(), name


def test_all_else_is_as_without(load, dtype):
    plain, small = (dict(load(dtype, int8=on).encoder.named_parameters()) for on in (False, True))
    assert small.keys() == {name for name in plain if "norm" in name or "bias" in name or "shared" in name}
    for name, parameter in small.items():
        assert parameter.dtype == DTYPES[dtype]
        assert torch.equal(parameter, plain[name]), name


def test_a_text_has_the_same_embedding_in_any_company(load, dtype, monkeypatch):
    monkeypatch.setattr("wanray.models.int8.BLOCK", 512)  # several in each layer, as at full width
    encoder = load(dtype, int8=True)
    alone = [encoder.encode(text) for text in TEXTS]
    for buckets in (TEXT_BUCKETS, TEXT_BUCKETS[-1:]):
        encoder.buckets = buckets
        for texts in (TEXTS, TEXTS[::-1], TEXTS * 2):
            for text, found in zip(texts, encoder.encode_all(texts), strict=True):
                assert found.text_LD.dtype == DTYPES[dtype]
                assert torch.equal(found.text_LD, alone[TEXTS.index(text)].text_LD), text


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_weights_are_rounded_from_what_is_stored(tiny, tmp_path, stored, dtype):
    component = open_checkpoint(tiny("t2v-1.3b")).text_encoder
    network = load_network(component, DTYPES[stored], "cpu")
    network.save_pretrained(tmp_path)
    component = replace(component, path=str(tmp_path), files=(str(tmp_path / "model.safetensors"),))
    found = load_int8(component, DTYPES[dtype], "cpu")
    quantise(network)
    for name, layer in layers(network, Int8Linear).items():
        assert torch.equal(found.get_submodule(f"encoder.{name}").weight, layer.weight)
    assert {parameter.dtype for parameter in found.parameters()} == {DTYPES[dtype]}


def test_a_missing_file_is_named_as_without(tiny):
    component = open_checkpoint(tiny("t2v-1.3b")).text_encoder
    for layout in ("diffusers", "official"):
        broken = replace(component, layout=layout, files=("/nowhere/model.safetensors",))
        with pytest.raises(ConfigError, match=r"/nowhere/model.safetensors is not on node"):
            load_int8(broken, torch.float32, "cpu")


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_a_product_in_blocks_is_the_product(monkeypatch, rows):
    monkeypatch.setattr("wanray.models.int8.BLOCK", rows * 24)
    monkeypatch.setattr("wanray.models.int8.SMALL_BLOCK", rows * 24)
    linear = torch.nn.Linear(24, 11, bias=False).requires_grad_(False)
    linear.weight[3] = 0
    layer, inputs = Int8Linear(linear), torch.randn(2, 3, 24)
    torch.testing.assert_close(layer.weight * layer.scale[:, None], linear.weight, rtol=0, atol=0.001)
    expected = functional.linear(inputs, layer.weight * layer.scale[:, None])
    torch.testing.assert_close(layer(inputs), expected)
    assert (layer(inputs)[..., 3] == 0).all()


def test_the_product_of_a_gpu_is_that_of_a_cpu():
    """Its code, here on the CPU: nothing was run on a GPU."""
    layer = Int8Linear(torch.nn.Linear(64, 32, bias=False).requires_grad_(False))
    inputs = torch.randn(5, 64).bfloat16()
    torch.testing.assert_close(layer._at_once(inputs).float(), layer._in_blocks(inputs), rtol=0.01, atol=1.0)
    assert layer.to("meta")(torch.empty(2, 5, 64, device="meta").bfloat16()).shape == (2, 5, 32)


def test_the_cache_keeps_both_apart_and_knows_its_old_names(tiny, tmp_path):
    checkpoint, url = open_checkpoint(tiny("t2v-1.3b")), str(tmp_path)
    found = {}
    for int8 in (False, True):
        config = EncodeConfig(
            text_encoder=checkpoint.text_encoder,
            tokenizer=checkpoint.tokenizer,
            mode="official",
            dtype="float32",
            int8=int8,
            digest="d",
            cache_url=url,
        )
        stage = Encode(config)
        stage.setup(Worker())
        found[int8] = stage.embed("a cat").text_LD
        stage.close()
    assert not torch.equal(found[False], found[True])
    names = {path.name for path in tmp_path.glob("texts/*/*")}
    assert len(names) == 2
    where = place(Worker().device, Worker().num_threads)
    assert Cache.name("d", "official", "float32", where, "a cat") in names
