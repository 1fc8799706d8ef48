"""Images, videos, masks and references to tensors. Equal conditions of several seeds are made once."""

from dataclasses import replace
from threading import Lock

import torch

from wanray.models.conditions import ConditionEncoder, Conditions, make_pixels
from wanray.models.device import are_healthy
from wanray.models.state import DTYPES
from wanray.records import Record, Request, canonical_json
from wanray.stage import Report, Worker
from wanray.stages.configs import ConditionConfig
from wanray.stages.inputs import read_inputs
from wanray.stages.kept import Kept, place
from wanray.stages.payload import Payload, pack_tensors, unpack_tensors

CACHED_CONDITIONS = 4


class Condition:
    """Adds what steers the request besides text to the payload."""

    def __init__(self, config: ConditionConfig) -> None:
        self.config = config
        self.worker = Worker()
        self.encoder: ConditionEncoder | None = None
        self.lock = Lock()
        """Around the encoder: what one thread encodes takes the worker's whole device."""
        self.kept = Kept("conditions", config.cache_url, CACHED_CONDITIONS, pack_tensors, unpack_tensors)

    def setup(self, worker: Worker) -> None:
        """Load VAE and image encoder."""
        self.worker = worker
        torch.set_num_threads(worker.num_threads)
        config = self.config
        pixels = make_pixels(config.mode, config.model, config.image_processor)
        self.encoder = ConditionEncoder(config.vae, config.image_encoder, pixels, config.model, worker.device)

    def run(self, record: Record, report: Report) -> Record:
        """Read the request's media and encode them; a row of text alone passes through."""
        request = record.request
        if not request.inputs and request.task != "vace":
            return record
        parts = (*self._parts(), *_parts(request))
        conditions, notes = self.kept.get(parts, lambda: self._encode(record))
        payload = replace(Payload.unpack(record.payload), conditions=conditions).pack()
        return replace(record, payload=payload, notes=(*record.notes, *notes))

    def _parts(self) -> tuple[str, ...]:
        config, worker = self.config, self.worker
        return config.digest, config.mode, config.dtype, place(worker.device, worker.num_threads)

    def _encode(self, record: Record) -> tuple[Conditions, tuple[str, ...]]:
        assert self.encoder is not None, "setup comes first"
        inputs, notes = read_inputs(record.request, record.sources, self.config.media)
        with self.lock:
            conditions = self.encoder.encode(record.request, inputs)
        # what pins latents keeps their precision; the rest is rounded by the transformer anyway
        dtype = DTYPES[self.config.dtype]
        rounded = {
            name: tensor.cpu() if name == "first_latents" else tensor.cpu().to(dtype)
            for name, tensor in conditions.items()
        }
        return rounded, notes

    def healthy(self) -> bool:
        """Whether its devices still work."""
        return are_healthy(self.worker.devices)

    def close(self) -> None:
        """Drop the networks."""
        self.encoder = None


def _parts(request: Request) -> tuple[str, ...]:
    """What of a request decides its conditions."""
    size = (request.width, request.height, request.num_frames, request.fps)
    how = (request.task, request.video_sampling, request.key_frames)
    return canonical_json(request.inputs), canonical_json(size), canonical_json(how)
