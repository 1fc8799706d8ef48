"""Sigmas, timesteps and the expert switch, in numpy: what the planner and the solvers must agree on.

Official: `wan/utils/fm_solvers_unipc.py` and `fm_solvers.py`. Diffusers: the flow-sigma branches of
`UniPCMultistepScheduler` and `DPMSolverMultistepScheduler` in 0.42. No solver arithmetic here.
"""

from dataclasses import dataclass

import numpy as np

SOLVERS = ("unipc", "dpm++")
MODES = ("official", "diffusers")
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """Noise levels of one request.

    sigmas: float32 [steps + 1], falling, the last one 0.
    timesteps: int64 [steps], 1000 * sigma truncated.
    """

    sigmas: np.ndarray
    timesteps: np.ndarray

    def steps_high(self, boundary: float | None) -> int:
        """Number of leading steps that belong to the high-noise expert (`t >= boundary * 1000`)."""
        if boundary is None:
            return 0
        return int((self.timesteps >= boundary * NUM_TRAIN_TIMESTEPS).sum())


def unshifted_sigmas(steps: int, solver: str, mode: str) -> np.ndarray:
    """Evenly spaced noise levels before the shift, float64 [steps]."""
    if mode == "diffusers" and solver == "unipc":
        return np.linspace(1, 1 / NUM_TRAIN_TIMESTEPS, steps + 1)[:-1]
    if mode == "diffusers":
        return (1 - np.linspace(1, 1 / NUM_TRAIN_TIMESTEPS, steps + 1))[::-1][:-1]
    if solver == "unipc":
        return np.linspace(float(np.float32(0.999)), 0, steps + 1)[:-1]
    return np.linspace(1, 0, steps + 1)[:steps]


def make_schedule(steps: int, shift: float, solver: str, mode: str) -> Schedule:
    """The noise levels that `solver` visits in `steps` steps under `shift`."""
    unshifted = unshifted_sigmas(steps, solver, mode)
    sigmas = shift * unshifted / (1 + (shift - 1) * unshifted)
    if mode == "diffusers" and abs(sigmas[0] - 1) < 1e-6:
        sigmas[0] -= 1e-6
    timesteps = (sigmas * NUM_TRAIN_TIMESTEPS).astype(np.int64)
    return Schedule(np.append(sigmas, 0.0).astype(np.float32), timesteps)
