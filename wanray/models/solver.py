"""UniPC and DPM++ for flow matching: diffusers' schedulers on official sigmas; their state can travel.

The arithmetic is diffusers'; with the official sigmas its trajectories equal the official code's bit for bit
(`wan/utils/fm_solvers_unipc.py`, `fm_solvers.py`).
"""

from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from wanray.schedule import make_schedule

SCHEDULERS = {"unipc": UniPCMultistepScheduler, "dpm++": DPMSolverMultistepScheduler}
OFFICIAL = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "solver_order": 2}

SCALARS = ("lower_order_nums", "this_order", "_step_index")
TENSORS = ("last_sample",)
LISTS = ("model_outputs", "timestep_list")


class Solver:
    """One request's solver: noise levels plus the history that multistep methods need."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.timesteps: torch.Tensor = scheduler.timesteps

    def step(self, velocity_BCTHW: torch.Tensor, index: int, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """Latents after step `index` (from 0), given the model's velocity prediction there."""
        return self.scheduler.step(velocity_BCTHW, self.timesteps[index], latents_BCTHW, return_dict=False)[0]

    def history(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What the next step needs from the former ones: tensors, and JSON-able scalars."""
        source = self.scheduler
        tensors = {name: getattr(source, name, None) for name in TENSORS}
        scalars: dict[str, Any] = {name: getattr(source, name) for name in SCALARS if hasattr(source, name)}
        for name in LISTS:
            values = getattr(source, name, [])
            scalars[name] = len(values)
            tensors |= {f"{name}.{i}": value for i, value in enumerate(values)}
        return {name: torch.as_tensor(value) for name, value in tensors.items() if value is not None}, scalars

    def restore(self, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
        """Take up the history of another solver of the same request."""
        for name in TENSORS:
            if hasattr(self.scheduler, name):
                setattr(self.scheduler, name, tensors.get(name))
        for name in SCALARS:
            if name in scalars:
                setattr(self.scheduler, name, scalars[name])
        for name in LISTS:
            if hasattr(self.scheduler, name):
                setattr(self.scheduler, name, [tensors.get(f"{name}.{i}") for i in range(scalars[name])])


def make_solver(
    name: str, steps: int, shift: float, mode: str, config: dict[str, Any], device: str
) -> Solver:
    """The solver of one request at its first step.

    name: `unipc` or `dpm++`. mode: `official` takes Wan's own sigmas; `diffusers` configures the scheduler
    from `config`, the checkpoint's, as a pipeline would.
    """
    scheduler_class = SCHEDULERS[name]
    if mode == "diffusers":
        scheduler = scheduler_class.from_config(config, flow_shift=shift)
        scheduler.set_timesteps(steps, device=device)
    else:
        scheduler = scheduler_class(**OFFICIAL, flow_shift=shift)
        scheduler.set_timesteps(steps, device=device)
        schedule = make_schedule(steps, shift, name, mode)
        scheduler.sigmas = torch.from_numpy(schedule.sigmas)
        scheduler.timesteps = torch.from_numpy(schedule.timesteps).to(device)
    scheduler.set_begin_index(0)
    return Solver(scheduler)
