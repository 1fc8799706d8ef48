"""The denoise loop: one function over a resumable state.

The state between two steps is the same object whether the next step is done by the same process, by the
other expert's pool or by a later run. Shape suffixes: B batch (1), C latent channels, T latent frames,
H, W latent height and width, L text tokens, D text width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from wanray.checkpoint import Component
from wanray.models.islands import add_float32_islands, is_island
from wanray.models.load import load_network
from wanray.models.solver import Solver, make_solver
from wanray.models.state import DenoiseState
from wanray.models.steering import Steering
from wanray.records import Request
from wanray.registry import Model

StopsAfter = Callable[[DenoiseState], bool]
Forward = Callable[[torch.Tensor], torch.Tensor]
"""Text embeddings [B, L, D] -> velocity [B, C, T, H, W]."""


@dataclass(frozen=True, slots=True)
class TextCondition:
    """Padded embeddings [1, 512, D] of the prompt and of the negative prompt, on the transformer's device."""

    prompt_BLD: torch.Tensor
    negative_BLD: torch.Tensor


@dataclass(frozen=True, slots=True)
class Numerics:
    """How to compute: the config's `numerics`, with the scheduler config that `diffusers` mode follows."""

    mode: str
    noise: str
    scheduler: dict[str, Any]


Pair = Callable[[Forward, TextCondition], tuple[torch.Tensor, torch.Tensor]]
"""How the conditional and the unconditional velocity of a step come about."""


def one_after_the_other(forward: Forward, text: TextCondition) -> tuple[torch.Tensor, torch.Tensor]:
    """Both forwards in this process."""
    return forward(text.prompt_BLD), forward(text.negative_BLD)


def load_transformer(
    component: Component,
    dtype: torch.dtype,
    device: str,
    *,
    official: bool,
    prepare: Callable[[Any], Any] | None = None,
) -> Any:
    """One expert; official numerics keep the residual stream and other islands of bfloat16 in float32.

    prepare: as `load_network` has it.
    """
    if not official or dtype is torch.float32:
        return load_network(component, dtype, device, aligned=official, prepare=prepare)
    transformer = load_network(component, dtype, device, keep_float32=is_island, prepare=prepare)
    add_float32_islands(transformer)
    return transformer


def first_state(request: Request, model: Model, numerics: Numerics) -> DenoiseState:
    """Pure noise of the request's seed, float32 [1, C, T, H, W]; a frame more per reference image.

    Drawn on the CPU, so that it is the same on every device and rank, or on the GPU in the order of the
    official code (`wan/text2video.py`).
    """
    frames = (request.num_frames - 1) // model.temporal_stride + 1 + num_references(request)
    height, width = request.height // model.spatial_stride, request.width // model.spatial_stride
    generator = torch.Generator(numerics.noise).manual_seed(request.seed)
    shape = (1, model.latent_channels, frames, height, width)
    return DenoiseState(torch.randn(shape, generator=generator, dtype=torch.float32, device=numerics.noise))


def num_references(request: Request) -> int:
    """Latent frames that stand before the video and are dropped at the end."""
    return len(request.inputs.get("reference_images", ()))


def guidance_of(request: Request, expert: str, mode: str) -> float | None:
    """The guidance scale of one expert, or None where the unconditional forward is not needed.

    Scale 1 needs none; diffusers' pipelines decide by the high-noise expert's scale for both.
    """
    scale = request.guidance.low if expert == "low" else request.guidance.high
    needed = request.guidance.high > 1 if mode == "diffusers" else scale != 1
    return scale if needed else None


def request_solver(request: Request, numerics: Numerics, device: str) -> Solver:
    """The solver of `request`, at step 0."""
    return make_solver(
        request.solver, request.steps, request.shift, numerics.mode, numerics.scheduler, device
    )


@torch.inference_mode()
def advance(
    transformer: Any,
    state: DenoiseState,
    solver: Solver,
    text: TextCondition,
    steering: Steering,
    guidance: float | None,
    until: int,
    mode: str,
    stops_after: StopsAfter,
    pair: Pair = one_after_the_other,
) -> DenoiseState:
    """Run the steps `state.step .. until` with one expert; returns the state after them.

    `solver` is fresh and takes up the state's history. `stops_after` gets the state after each step; where
    it answers True, that state is returned. Official numerics: the model's output, guidance and solver
    compute in float32 whatever the transformer's dtype.
    """
    if state.step:
        solver.restore(state.history, state.scalars)
    state = replace(state, latents_BCTHW=steering.pin(state.latents_BCTHW))
    for index in range(state.step, until):
        velocity_BCTHW = predict_velocity(
            transformer,
            state.latents_BCTHW,
            solver.timesteps[index],
            text,
            steering,
            guidance,
            mode == "official",
            pair,
        )
        latents_BCTHW = steering.pin(solver.step(velocity_BCTHW, index, state.latents_BCTHW))
        state = DenoiseState(latents_BCTHW, index + 1, *solver.history())
        if stops_after(state):
            break
    return state


def predict_velocity(
    transformer: Any,
    latents_BCTHW: torch.Tensor,
    timestep: torch.Tensor,
    text: TextCondition,
    steering: Steering,
    guidance: float | None,
    in_float32: bool,
    pair: Pair = one_after_the_other,
) -> torch.Tensor:
    """Velocity under classifier-free guidance, `uncond + g * (cond - uncond)`; one forward where it is None.

    Official: `wan/text2video.py`, `noise_pred = noise_pred_uncond + guide_scale * (...)`.
    """

    arguments = steering.arguments(transformer)

    def forward(text_BLD: torch.Tensor) -> torch.Tensor:
        velocity_BCTHW = transformer(
            hidden_states=steering.channels(latents_BCTHW).to(transformer.dtype),
            timestep=steering.timestep(timestep, latents_BCTHW),
            encoder_hidden_states=text_BLD,
            return_dict=False,
            **arguments,
        )[0]
        return velocity_BCTHW.float() if in_float32 else velocity_BCTHW

    if guidance is None:
        return forward(text.prompt_BLD)
    conditional_BCTHW, unconditional_BCTHW = pair(forward, text)
    return unconditional_BCTHW + guidance * (conditional_BCTHW - unconditional_BCTHW)
