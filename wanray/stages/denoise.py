"""Noise to latents: the steps of one expert, or of both. All ranks of a gang run this on one record."""

from dataclasses import asdict, replace

import torch

from wanray.errors import ConfigError
from wanray.models import process_group
from wanray.models.denoise import (
    Numerics,
    TextCondition,
    advance,
    first_state,
    guidance_of,
    load_transformer,
    num_references,
    request_solver,
)
from wanray.models.device import is_healthy
from wanray.models.state import DTYPES, DenoiseState, pad_text
from wanray.models.steering import Steering
from wanray.records import Record, Request
from wanray.stage import Report, Worker
from wanray.stages.configs import DenoiseConfig
from wanray.stages.payload import Payload


class Denoise:
    """Advances the denoise state by the steps of its experts."""

    def __init__(self, config: DenoiseConfig) -> None:
        self.config = config
        self.numerics = Numerics(config.mode, config.noise, config.scheduler)
        self.transformers = {}
        self.store = None
        self.worker = Worker()

    def host_rendezvous(self, host: str, world_size: int) -> str:
        """Open the gang's store; called on rank 0 before any rank is set up."""
        self.store = process_group.open_store(host, world_size)
        return f"{host}:{self.store.port}"

    def setup(self, worker: Worker) -> None:
        """Join the gang and load the experts."""
        self.worker = worker
        if self.config.noise != "cpu" and worker.device == "cpu":
            raise ConfigError("numerics.noise cuda needs GPUs for the denoise pools: use numerics.noise=cpu")
        torch.set_num_threads(worker.num_threads)
        if worker.world_size > 1:
            process_group.join(self.store, worker.rendezvous, worker.rank, worker.world_size, worker.device)
        self.transformers = {
            expert: load_transformer(
                component, DTYPES[self.config.dtype], worker.device, self.config.mode == "official"
            )
            for expert, component in self.config.transformers.items()
        }

    def run(self, record: Record, report: Report) -> Record:
        """Run this pool's steps; the last pool drops everything but the latents."""
        if self.worker.world_size > 1:
            process_group.check_agreement(record.key, self.worker.device)
        payload = Payload.unpack(record.payload)
        assert payload.prompt_LD is not None, "denoise comes after encode"
        assert payload.negative_LD is not None, "denoise comes after encode"
        text = TextCondition(self._to_device(payload.prompt_LD), self._to_device(payload.negative_LD))
        state = payload.state or first_state(record.request, self.config.model, self.numerics)
        steering = self._steering(record.request, payload)
        for expert in self.transformers:
            state = self._advance(expert, record.request, state, text, steering, report)
        result = replace(payload, state=state)
        if self.config.model.experts[-1] in self.transformers:
            video_BCTHW = state.latents_BCTHW[:, :, num_references(record.request) :]
            result = Payload(state=DenoiseState(video_BCTHW, state.step))
        topology = asdict(self.config.topology) | {"world_size": self.worker.world_size}
        return replace(record, payload=result.pack(), topology=record.topology | {self.config.pool: topology})

    def _steering(self, request: Request, payload: Payload) -> Steering:
        conditions = {name: tensor.to(self.worker.device) for name, tensor in payload.conditions.items()}
        scale = 1.0 if request.context_scale is None else request.context_scale
        exact = self.config.mode == "official"
        return Steering(conditions, scale, exact, self.config.model.has_token_timesteps)

    def _advance(
        self,
        expert: str,
        request: Request,
        state: DenoiseState,
        text: TextCondition,
        steering: Steering,
        report: Report,
    ) -> DenoiseState:
        device = self.worker.device
        solver = request_solver(request, self.numerics, device)
        state = DenoiseState(
            state.latents_BCTHW.to(device),
            state.step,
            {name: tensor.to(device) for name, tensor in state.history.items()},
            state.scalars,
        )
        until = request.steps
        if expert == "high":
            assert self.config.boundary is not None
            until = int((solver.timesteps >= self.config.boundary * 1000).sum())
        guidance = guidance_of(request, expert, self.config.mode)
        transformer = self.transformers[expert]
        return advance(transformer, state, solver, text, steering, guidance, until, self.config.mode, report)

    def _to_device(self, text_LD: torch.Tensor) -> torch.Tensor:
        return pad_text(text_LD).to(self.worker.device, DTYPES[self.config.dtype])

    def healthy(self) -> bool:
        """Whether the device still works."""
        return is_healthy(self.worker.device)

    def close(self) -> None:
        """Leave the gang and drop the weights."""
        process_group.leave()
        self.transformers = {}
