"""What passes between the stages equals the official code's: embeddings, conditions, every stored step."""

import json

import pytest
import torch
from golden_cases import GOLDEN, RUNS, row_of
from model_runs import make_stages, record_of, silent
from safetensors.torch import load_file

from wanray.checkpoint import open_checkpoint
from wanray.models.denoise import TextCondition, advance, first_state, num_references, request_solver
from wanray.models.state import DenoiseState, pad_text
from wanray.stage import Worker
from wanray.stages.payload import Payload

CONDITIONS = {
    "image_features": "clip_fea",
    "image_latents": "y",
    "control": "vace_context",
    "first_latents": "image_latent",
}


def close(actual, expected, atol=1e-4):
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=1e-4, atol=atol)


@pytest.fixture(scope="module", params=RUNS, ids="/".join)
def run(request):
    """(case, record after encode and condition, denoise stages, official outputs, sensitivity)."""
    case, name = request.param
    path = GOLDEN / case / "checkpoint"
    stages = make_stages(path, [(expert,) for expert in open_checkpoint(path).transformers])
    record = record_of(path, row_of(case, name))
    for stage in stages[:2]:
        stage.setup(Worker())
        record = stage.run(record, silent)
        stage.close()
    inputs = json.loads((GOLDEN / case / "runs" / name / "inputs.json").read_text())
    outputs = load_file(GOLDEN / case / "runs" / name / "outputs.safetensors")
    return record, stages[2:], inputs, outputs, GOLDEN / case / "runs" / name


def test_request_is_the_official_one(run):
    record, _, inputs, _, _ = run
    request = record.request
    assert [request.width, request.height] == inputs.get("output_size", inputs.get("size"))
    assert request.num_frames == inputs["frame_num"]
    assert request.negative_prompt == inputs["effective_negative_prompt"]


def test_embeddings_and_conditions(run):
    record, _, _, outputs, _ = run
    payload = Payload.unpack(record.payload)
    close(payload.prompt_LD, outputs["context"])
    close(payload.negative_LD, outputs["context_null"])
    expected = {name: key for name, key in CONDITIONS.items() if key in outputs}
    assert set(payload.conditions) == set(expected)
    for name, key in expected.items():
        tensor = payload.conditions[name]
        close(tensor if name == "image_features" else tensor[0], outputs[key])


def test_noise_schedule_and_every_stored_step(run):
    record, stages, inputs, outputs, folder = run
    noise = load_file(folder / "inputs.safetensors")["noise"]
    payload = Payload.unpack(record.payload)
    text = TextCondition(pad_text(payload.prompt_LD), pad_text(payload.negative_LD))
    state = None
    tolerance = max(1e-4, 4 * inputs["sensitivity"]["max_abs_change_of_final_latents"])
    checked = 0
    for stage in stages:
        stage.setup(Worker())
        state = state or first_state(record.request, stage.config.model, stage.numerics)
        if state.step == 0:
            assert torch.equal(state.latents_BCTHW[0], noise)
        (expert,) = stage.config.transformers
        solver = request_solver(record.request, stage.numerics, "cpu")
        assert torch.equal(solver.timesteps, outputs["timesteps"])
        high = int((solver.timesteps >= (stage.config.boundary or 0) * 1000).sum())
        until = high if expert == "high" else record.request.steps
        scale = record.request.guidance.low if expert == "low" else record.request.guidance.high
        steering = stage._steering(record.request, payload)
        while state.step < until:
            step = state.step + 1
            solver = request_solver(record.request, stage.numerics, "cpu")
            network = stage.experts.get(expert, lambda: None)
            state = advance(
                network, state, solver, text, steering, scale, step, "official", lambda state: False
            )
            if f"latents.{step:02d}" in outputs:
                close(state.latents_BCTHW[0], outputs[f"latents.{step:02d}"], tolerance)
                checked += 1
        stage.close()
    assert checked >= 3
    assert isinstance(state, DenoiseState)
    close(state.latents_BCTHW[0, :, num_references(record.request) :], outputs["final_latents"], tolerance)
