"""One expert at a time: the same latents as with both, whoever comes when; and hand-off at every step."""

import shutil
from dataclasses import replace

import pytest
import torch
from gangs import encoded
from model_runs import denoise_config, denoised_alone, silent
from safetensors.torch import load_file, save_file

from wanray.checkpoint import open_checkpoint
from wanray.errors import ConfigError
from wanray.models import experts as experts_module
from wanray.models.denoise import (
    Numerics,
    TextCondition,
    advance,
    first_state,
    guidance_of,
    load_transformer,
    request_solver,
)
from wanray.models.state import pad_text
from wanray.models.steering import Steering
from wanray.records import RESUMED
from wanray.stage import Worker
from wanray.stages.denoise import Denoise
from wanray.stages.payload import Payload
from wanray.storage import Store

EXPERTS = ("high", "low")
ROW = {
    "prompt": "a red circle",
    "width": 80,
    "height": 48,
    "num_frames": 5,
    "seed": 7,
    "steps": 4,
    "shift": 5.0,
    "guidance": {"high": 4.0, "low": 3.0},
}
WITHOUT_LOW = {"steps": 1, "seed": 8}
"""Whose only step is the high expert's."""


def swapping(path, mode="official", dtype="float32", **values):
    config = denoise_config(open_checkpoint(path), EXPERTS, mode, dtype, swaps=True)
    stage = Denoise(replace(config, **values))
    stage.setup(Worker())
    return stage


def latents(record):
    return Payload.unpack(record.payload).state.latents_BCTHW


@pytest.fixture
def refilled(monkeypatch):
    """The experts that were swapped in, in order."""
    names, refill = [], experts_module.refill

    def noting(network, component, tell):
        names.append(component.path.rsplit("/", 1)[-1])
        refill(network, component, tell)

    monkeypatch.setattr(experts_module, "refill", noting)
    return names


@pytest.mark.parametrize(
    ("mode", "dtype"), [("official", "float32"), ("official", "bfloat16"), ("diffusers", "bfloat16")]
)
def test_requests_in_any_order_give_the_latents_of_both(tiny, refilled, mode, dtype):
    path = tiny("t2v-a14b")
    records = encoded(path, [ROW | {"seed": seed} for seed in range(3)], dtype, mode)
    expected = [denoised_alone(path, record, EXPERTS, mode=mode, dtype=dtype) for record in records]
    stage = swapping(path, mode, dtype)
    refilled.clear()
    one, two = (stage.run(record, silent) for record in records[:2])
    one = stage.run(one, silent)
    three = stage.run(records[2], silent)
    two, three = stage.run(two, silent), stage.run(three, silent)
    stage.close()
    assert refilled == ["transformer_2", "transformer", "transformer_2"]
    assert all(
        torch.equal(latents(done), wanted) for done, wanted in zip((one, two, three), expected, strict=True)
    )


def test_a_request_without_steps_of_one_expert_is_done_at_its_first_visit(tiny, refilled):
    path = tiny("t2v-a14b")
    (record,) = encoded(path, [ROW | WITHOUT_LOW])
    stage = swapping(path)
    refilled.clear()
    done = stage.run(record, silent)
    assert Payload.unpack(done.payload).state.step == 1
    assert stage.run(done, silent) == done
    assert refilled == [], "nobody swaps for a request that has nothing left to do"
    assert torch.equal(latents(done), denoised_alone(path, record, EXPERTS))
    assert torch.equal(latents(done), denoised_alone(path, record, ("high",), ("low",)))


def test_a_swap_that_fails_half_way_is_made_again(tiny, monkeypatch):
    path = tiny("t2v-a14b")
    (record,) = encoded(path, [ROW])
    stage = swapping(path)
    half = stage.run(record, silent)
    calls = []

    def failing(step, total):
        calls.append(step)
        if len(calls) == 3:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        stage.run(half, failing)
    done = stage.run(half, silent)
    assert torch.equal(latents(done), denoised_alone(path, record, EXPERTS))
    assert torch.equal(latents(stage.run(record, silent)), latents(half))


def test_what_waits_for_the_other_expert_is_stored(tiny, tmp_path):
    """A run that is told to stop meanwhile loses no step: the next one goes on after the high expert's."""
    path = tiny("t2v-a14b")
    one, two = encoded(path, [ROW, ROW | {"seed": 9}])
    url = str(tmp_path / "out")
    stage = swapping(path, output_url=url, checkpoint_every_steps=1)
    waiting = stage.run(one, silent)
    stage.run(two, silent)
    stage.close()
    step = Payload.unpack(waiting.payload).state.step
    assert 0 < step < ROW["steps"]
    stored = Store.open(url).names(f"work/{one.key}")
    assert any(f"state-{step:06d}" in name for name in stored), (
        "the states of the next request took its place"
    )
    again = swapping(path, output_url=url)
    done = again.run(one, silent)
    assert any(note.startswith(RESUMED) for note in done.notes)
    assert torch.equal(latents(done), denoised_alone(path, one, EXPERTS))


def test_an_expert_that_does_not_fit_is_refused_before_the_first_request(tiny, tmp_path):
    path = shutil.copytree(tiny("t2v-a14b"), tmp_path / "model")
    (file,) = (path / "transformer_2").glob("*.safetensors")
    tensors = load_file(file)
    del tensors["proj_out.bias"]
    save_file(tensors, file)
    with pytest.raises(ConfigError, match=r"transformer_2.* lack proj_out\.bias"):
        swapping(path)


def test_the_two_experts_of_the_tiny_model_differ(tiny):
    """Else swapping would show in no latents."""
    path = tiny("t2v-a14b")
    (record,) = encoded(path, [ROW])
    swapped = dict(zip(EXPERTS, reversed(open_checkpoint(path).transformers.values()), strict=True))
    config = denoise_config(open_checkpoint(path), EXPERTS, "official")
    stage = Denoise(replace(config, transformers=swapped))
    stage.setup(Worker())
    assert not torch.equal(latents(stage.run(record, silent)), denoised_alone(path, record, EXPERTS))


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_the_state_can_be_handed_over_after_every_step(tiny, solver):
    """Stopped after step k, sent as bytes, and gone on with by fresh networks and a fresh solver."""
    path = tiny("t2v-a14b")
    (record,) = encoded(path, [ROW | {"steps": 6, "solver": solver}])
    expected = denoised_alone(path, record, EXPERTS)
    for step in range(1, 6):
        state = in_two_parts(path, record, step)
        assert torch.equal(state.latents_BCTHW, expected), f"handed over after step {step}"


def in_two_parts(path, record, step):
    """The last state of `record`, which two halves of the code have worked on: up to `step`, and after it."""
    stage = Denoise(denoise_config(open_checkpoint(path), EXPERTS, "official"))
    payload = Payload.unpack(record.payload)
    state = first_state(record.request, stage.config.model, stage.numerics)
    for until in (step, record.request.steps):
        sent = Payload.unpack(replace(payload, state=state).pack())
        state = steps_of_both(stage, record.request, sent, until)
    return state


def steps_of_both(stage, request, payload, until):
    config, state = stage.config, payload.state
    text = TextCondition(pad_text(payload.prompt_LD), pad_text(payload.negative_LD))
    numerics = Numerics(config.mode, config.noise, config.scheduler)
    for expert, component in config.transformers.items():
        transformer = load_transformer(component, torch.float32, "cpu", official=True)
        end = min(until, stage._until(expert, request))
        solver, guidance = request_solver(request, numerics, "cpu"), guidance_of(request, expert, config.mode)
        if state.step < end:
            state = advance(
                transformer,
                state,
                solver,
                text,
                Steering({}),
                guidance,
                end,
                config.mode,
                lambda state: False,
            )
    return state
