"""Noise to latents: the steps of one expert, or of both. All ranks of a gang run this on one record."""

import logging
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from typing import Any

import torch

from wanray.checkpoint import Component
from wanray.errors import ConfigError
from wanray.models import process_group
from wanray.models.denoise import (
    Numerics,
    StopsAfter,
    TextCondition,
    advance,
    first_state,
    guidance_of,
    num_references,
    request_solver,
)
from wanray.models.device import are_healthy
from wanray.models.experts import Resident, Swapped
from wanray.models.ranks import make_ranks
from wanray.models.state import DTYPES, DenoiseState, pad_text
from wanray.models.steering import Steering
from wanray.records import RESUMED, Record, Request
from wanray.stage import Report, Worker
from wanray.stages.configs import DenoiseConfig
from wanray.stages.payload import Payload
from wanray.stages.saver import Saver
from wanray.stages.states import States
from wanray.storage import Store

logger = logging.getLogger(__name__)

TOKEN_LATENTS = 4
"""Latents that a token stands for: two by two of a frame."""


class Denoise:
    """Advances the denoise state by the steps of its experts."""

    def __init__(self, config: DenoiseConfig) -> None:
        self.config = config
        self.numerics = Numerics(config.mode, config.noise, config.scheduler)
        self.experts: Any = None
        self.store = None
        self.ranks: Any = None
        self.states: Any = None
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
        self.states = States(Store.open(self.config.output_url))
        dtype, mode = DTYPES[self.config.dtype], self.config.mode
        self.ranks = make_ranks(worker, self.config.topology, self.config.attention, mode, dtype, self.store)

        def load(component: Component) -> Any:
            return self.ranks.load(
                component, dtype, official=mode == "official", offloads=self.config.offloads
            )

        self.experts = (Swapped if self.config.swaps else Resident)(self.config.transformers, load)

    def run(self, record: Record, report: Report) -> Record:
        """Run this pool's steps, or those of one expert where they are swapped; after the last step of all
        nothing but the latents is kept.
        """
        self.ranks.check("the request", bytes.fromhex(record.key))
        if self.config.check_inputs:
            self.ranks.check("its inputs", sha256(record.payload).digest())
        payload = Payload.unpack(record.payload)
        if payload.state is not None and payload.state.step == record.request.steps:
            return record
        assert payload.prompt_LD is not None, "denoise comes after encode"
        assert payload.negative_LD is not None, "denoise comes after encode"
        text = TextCondition(self._to_device(payload.prompt_LD), self._to_device(payload.negative_LD))
        first = payload.state or first_state(record.request, self.config.model, self.numerics)
        num_tokens = first.latents_BCTHW[0, 0].numel() // TOKEN_LATENTS
        self.config.topology.check_tokens(f"pools.{self.config.pool}.topology", [num_tokens])
        state = self._resumed(record, first)
        notes = record.notes
        if state is not first:
            notes = (*notes, f"{RESUMED} {state.step}, which an earlier try had stored")
        steering = self._steering(record.request, payload)
        saver = self._saver(record, report)
        for expert in self._due(record.request, state):
            transformer = self.experts.get(expert, partial(report, state.step, record.request.steps))
            state = self._advance(
                transformer, expert, record.request, state, text, steering, saver.stops_after
            )
            saver.expert_done(state)
        result = replace(payload, state=state)
        if state.step == record.request.steps:
            video_BCTHW = state.latents_BCTHW[:, :, num_references(record.request) :]
            result = Payload(state=DenoiseState(video_BCTHW, state.step))
        topology = asdict(self.config.topology) | {
            "world_size": self.worker.world_size,
            "attention": self.ranks.attention,
        }
        return replace(
            record,
            payload=result.pack(),
            topology=record.topology | {self.config.pool: topology},
            notes=notes,
        )

    def _resumed(self, record: Record, state: DenoiseState) -> DenoiseState:
        """The stored state of an earlier try, where there is one beyond `state`; on all ranks the same."""
        found = self.states.begin(record.key, bool(record.tries)) if self.worker.rank == 0 else None
        step = self.ranks.from_first(found.step if found is not None and found.step > state.step else 0)
        if step and self.worker.rank:
            found = self.states.at_step(record.key, step)
        return state if not step or found is None else found

    def _saver(self, record: Record, report: Report) -> Saver:
        states = self.states if self.worker.rank == 0 else None
        every = self.config.checkpoint_every_steps
        between = every > 0 or self.config.swaps
        return Saver(states, record.key, every, between, record.request.steps, report, self.ranks)

    def _steering(self, request: Request, payload: Payload) -> Steering:
        conditions = {name: tensor.to(self.worker.device) for name, tensor in payload.conditions.items()}
        scale = 1.0 if request.context_scale is None else request.context_scale
        exact = self.config.mode == "official"
        return Steering(conditions, scale, exact, self.config.model.has_token_timesteps)

    def _due(self, request: Request, state: DenoiseState) -> list[str]:
        """The experts to run now: all of this pool, or the first that has steps left."""
        experts = list(self.config.transformers)
        if not self.config.swaps:
            return experts
        return [expert for expert in experts if state.step < self._until(expert, request)][:1]

    def _until(self, expert: str, request: Request) -> int:
        """The steps of `request` that are done when `expert` has done its own."""
        if expert != "high":
            return request.steps
        assert self.config.boundary is not None
        timesteps = request_solver(request, self.numerics, "cpu").timesteps
        return int((timesteps >= self.config.boundary * 1000).sum())

    def _advance(
        self,
        transformer: Any,
        expert: str,
        request: Request,
        state: DenoiseState,
        text: TextCondition,
        steering: Steering,
        stops_after: StopsAfter,
    ) -> DenoiseState:
        device = self.worker.device
        solver = request_solver(request, self.numerics, device)
        state = DenoiseState(
            state.latents_BCTHW.to(device),
            state.step,
            {name: tensor.to(device) for name, tensor in state.history.items()},
            state.scalars,
        )
        until, guidance = self._until(expert, request), guidance_of(request, expert, self.config.mode)
        mode, pair = self.config.mode, self.ranks.pair
        return advance(transformer, state, solver, text, steering, guidance, until, mode, stops_after, pair)

    def _to_device(self, text_LD: torch.Tensor) -> torch.Tensor:
        return pad_text(text_LD).to(self.worker.device, DTYPES[self.config.dtype])

    def healthy(self) -> bool:
        """Whether its devices still work."""
        return are_healthy(self.worker.devices)

    def close(self) -> None:
        """Leave the gang and drop the weights."""
        if self.ranks is not None:
            self.ranks.leave()
        if self.states is not None:
            self.states.close()
        self.experts = None
