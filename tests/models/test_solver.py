"""Solvers follow the official trajectories and can be interrupted after any step."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wanray.models.solver import make_solver
from wanray.schedule import make_schedule

GOLDEN = Path(__file__).parents[1] / "golden" / "schedulers"
SETTINGS = json.loads((GOLDEN / "settings.json").read_text())["settings"]


def golden(solver):
    return load_file(GOLDEN / ("unipc.safetensors" if solver == "unipc" else "dpmpp.safetensors"))


def velocity(data, latents, timestep):
    """The linear model of the golden data."""
    mixed = torch.einsum("ij,bjthw->bithw", data["model.A"], latents)
    return mixed + (timestep / 1000) * data["model.b"][None, :, None, None, None]


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["key"])
def test_schedule_and_trajectory_equal_the_official_code(solver, setting):
    data, key = golden(solver), setting["key"]
    steps, shift = setting["sampling_steps"], setting["shift"]
    schedule = make_schedule(steps, shift, solver, "official")
    assert torch.equal(torch.from_numpy(schedule.sigmas), data[f"{key}.sigmas"])
    assert torch.equal(torch.from_numpy(schedule.timesteps), data[f"{key}.timesteps"])
    solver_object = make_solver(solver, steps, shift, "official", {}, "cpu")
    latents = data["x_init"]
    latents = latents[None] if latents.ndim == 4 else latents
    for index in range(steps):
        latents = solver_object.step(velocity(data, latents, solver_object.timesteps[index]), index, latents)
        torch.testing.assert_close(latents[0], data[f"{key}.trajectory"][index], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize("stop", range(1, 7))
def test_history_carries_over_after_any_step(solver, stop):
    def run(solver_object, latents, start, until):
        for index in range(start, until):
            latents = solver_object.step(torch.sin(latents) * 0.7, index, latents)
        return latents

    torch.manual_seed(0)
    start = torch.randn(1, 4, 2, 3, 3)
    whole = run(make_solver(solver, 7, 5.0, "official", {}, "cpu"), start, 0, 7)
    first, second = (make_solver(solver, 7, 5.0, "official", {}, "cpu") for _ in range(2))
    middle = run(first, start, 0, stop)
    second.restore(*first.history())
    assert torch.equal(whole, run(second, middle, stop, 7))
