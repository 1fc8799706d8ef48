"""Images, videos, masks and references to tensors. Equal conditions of several seeds are made once."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from wanray.models.conditions import ConditionEncoder, Conditions, make_pixels
from wanray.models.device import is_healthy
from wanray.models.state import DTYPES
from wanray.records import Record, Request
from wanray.stage import Report, Worker
from wanray.stages.configs import ConditionConfig
from wanray.stages.inputs import read_inputs
from wanray.stages.payload import Payload

CACHED_CONDITIONS = 4


class Condition:
    """Adds what steers the request besides text to the payload."""

    def __init__(self, config: ConditionConfig) -> None:
        self.config = config
        self.worker = Worker()
        self.encoder: ConditionEncoder | None = None
        self.encode: Any = None

    def setup(self, worker: Worker) -> None:
        """Load VAE and image encoder."""
        self.worker = worker
        torch.set_num_threads(worker.num_threads)
        config = self.config
        pixels = make_pixels(config.mode, config.model, config.image_processor)
        self.encoder = ConditionEncoder(config.vae, config.image_encoder, pixels, config.model, worker.device)
        self.encode = lru_cache(CACHED_CONDITIONS)(self._encode)

    def run(self, record: Record, report: Report) -> Record:
        """Read the request's media and encode them; a row of text alone passes through."""
        request = record.request
        if not request.inputs and request.task != "vace":
            return record
        conditions, notes = self.encode(_Key(request, record.sources))
        payload = replace(Payload.unpack(record.payload), conditions=conditions).pack()
        return replace(record, payload=payload, notes=(*record.notes, *notes))

    def _encode(self, key: "_Key") -> tuple[Conditions, tuple[str, ...]]:
        assert self.encoder is not None, "setup comes first"
        inputs, notes = read_inputs(key.request, key.sources, self.config.media)
        conditions = self.encoder.encode(key.request, inputs)
        # what pins latents keeps their precision; the rest is rounded by the transformer anyway
        dtype = DTYPES[self.config.dtype]
        rounded = {
            name: tensor.cpu() if name == "first_latents" else tensor.cpu().to(dtype)
            for name, tensor in conditions.items()
        }
        return rounded, notes

    def healthy(self) -> bool:
        """Whether the device still works."""
        return is_healthy(self.worker.device)

    def close(self) -> None:
        """Drop the networks and the cache."""
        self.encoder = self.encode = None


class _Key:
    """A request as far as it decides its conditions."""

    def __init__(self, request: Request, sources: dict[str, str]) -> None:
        self.request, self.sources = request, sources
        inputs = tuple(sorted(request.inputs.items()))
        size = (request.width, request.height, request.num_frames)
        self.parts = (request.task, inputs, size, request.fps, request.video_sampling, request.key_frames)

    def __hash__(self) -> int:
        return hash(self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.parts == other.parts
