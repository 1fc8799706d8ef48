"""Blocks that stay on the host and visit the device in turn: the same latents, one block there at a time."""

from dataclasses import replace

import pytest
import torch
from gangs import encoded
from model_runs import denoise_config, denoised_alone, silent

from wanray.checkpoint import open_checkpoint
from wanray.models.denoise import load_transformer
from wanray.models.offload import keep_on_host
from wanray.stage import Worker
from wanray.stages.denoise import Denoise
from wanray.stages.payload import Payload

ROW = {
    "prompt": "a red circle",
    "width": 64,
    "height": 64,
    "num_frames": 5,
    "seed": 7,
    "steps": 2,
    "shift": 5.0,
    "guidance": 4.0,
}
KINDS = {"t2v-1.3b": ("single",), "vace-1.3b": ("single",), "t2v-a14b": ("high", "low")}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("mode", "dtype"), [("official", "float32"), ("official", "bfloat16"), ("diffusers", "bfloat16")]
)
def test_the_latents_are_those_of_weights_that_stay(tiny, name, mode, dtype):
    path, experts = tiny(name), KINDS[name]
    (record,) = encoded(path, [ROW], dtype, mode)
    expected = denoised_alone(path, record, experts, mode=mode, dtype=dtype)
    config = denoise_config(open_checkpoint(path), experts, mode, dtype)
    stage = Denoise(replace(config, offloads=True))
    stage.setup(Worker())
    for _ in range(2):
        found = Payload.unpack(stage.run(record, silent).payload).state.latents_BCTHW
        assert torch.equal(found, expected)
    stage.close()


@pytest.fixture(params=["t2v-1.3b", "vace-1.3b"])
def transformer(request, tiny):
    (component,) = open_checkpoint(tiny(request.param)).transformers.values()
    return load_transformer(component, torch.bfloat16, "cpu", official=True)


def blocks_of(transformer):
    return [*transformer.blocks, *getattr(transformer, "vace_blocks", ())]


def places(transformer):
    """Of the weights of each block: memory on the host, or what other device."""
    return [
        [p.data_ptr() if p.device.type == "cpu" else p.device.type for p in block.parameters()]
        for block in blocks_of(transformer)
    ]


def forward(transformer, device):
    channels, frames, side = transformer.config.in_channels, 2, 8
    given = {
        "hidden_states": torch.zeros(1, channels, frames, side, side),
        "timestep": torch.zeros(1),
        "encoder_hidden_states": torch.zeros(1, 4, transformer.config.text_dim),
    }
    if (control := getattr(transformer.config, "vace_in_channels", None)) is not None:
        given["control_hidden_states"] = torch.zeros(1, control, frames, side, side)
    with torch.inference_mode():
        return transformer(**{name: tensor.to(device) for name, tensor in given.items()}).sample


def test_one_block_at_a_time_is_on_the_device(transformer):
    """`meta` is a device without memory; tensors of two devices in one operation are an error of torch's."""
    before, seen = places(transformer), []
    keep_on_host(transformer, "meta")
    for number, block in enumerate(blocks_of(transformer)):
        block.register_forward_pre_hook(lambda *_, number=number: seen.append((number, places(transformer))))
    assert forward(transformer, "meta").device.type == "meta"
    assert len(seen) == len(before)
    for number, now in seen:
        away = [index for index, block in enumerate(now) if set(block) == {"meta"}]
        assert away == [number]
        assert all(now[index] == before[index] for index in range(len(now)) if index != number)
    assert places(transformer) == before
    others = {p.device.type for name, p in transformer.named_parameters() if "blocks." not in name}
    assert others == {"meta"}


def test_a_block_that_fails_leaves_the_device(transformer):
    before = places(transformer)
    keep_on_host(transformer, "meta")

    def fail(*_):
        raise MemoryError("the device is full")

    hook = blocks_of(transformer)[0].ffn.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        forward(transformer, "meta")
    assert places(transformer) == before
    hook.remove()
    forward(transformer, "meta")
