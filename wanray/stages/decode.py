"""Latents to a committed clip: VAE, mp4, poster, upload, commit. Frames never leave this process."""

import hashlib
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from safetensors.torch import save

from wanray.errors import ConfigError, InfrastructureError, StorageError
from wanray.models.decode import decode_latents, load_vae, to_uint8
from wanray.models.device import is_healthy
from wanray.records import Clip, Record
from wanray.sinks.ledger import Ledger, clip_folder, video_name
from wanray.sinks.video import encode_mp4, encode_poster
from wanray.stage import Report, Worker
from wanray.stages.configs import DecodeConfig
from wanray.stages.payload import Payload
from wanray.storage import Store

PACKAGES = ("wanray", "torch", "diffusers", "transformers", "av")


class Decode:
    """The last stage: after it the record is committed and carries its clip."""

    def __init__(self, config: DecodeConfig) -> None:
        self.config = config
        self.worker = Worker()
        self.vae: Any = None
        self.versions = {name: version(name) for name in PACKAGES}

    def setup(self, worker: Worker) -> None:
        """Load the VAE and open the store."""
        self.worker = worker
        torch.set_num_threads(worker.num_threads)
        self.vae = load_vae(f"{self.config.checkpoint}/vae", worker.device)
        self.ledger = Ledger(Store.open(self.config.output.url))
        if not self.ledger.store.exists(f"runs/{self.config.run}/config.yaml"):
            raise ConfigError(
                f"output.url {self.ledger.store.url} is not the same place on every node: "
                "use an object store or a folder that all nodes share"
            )

    def run(self, record: Record, report: Report) -> Record:
        """Decode, encode and commit; a clip that somebody else has committed is taken as it is."""
        start = time.monotonic()
        state = Payload.unpack(record.payload).state
        assert state is not None, "decode comes after denoise"
        frames_FHWC = to_uint8(decode_latents(self.vae, state.latents_BCTHW)).numpy()
        request = record.request
        title = {"title": request.prompt[:200], "comment": f"wanray {record.key}"}
        mp4 = encode_mp4(frames_FHWC, request.fps, self.config.output.video, title)
        timings_s = record.timings_s | {"decode": time.monotonic() - start}
        record = replace(record, clip=self._clip(record, mp4), payload=b"", timings_s=timings_s)
        extra = {"latents.safetensors": save({"latents": state.latents_BCTHW[0].contiguous()})}
        try:
            won = self.ledger.commit(
                record,
                mp4,
                encode_poster(frames_FHWC[len(frames_FHWC) // 2]),
                extra if self.config.output.save_latents else {},
                self._meta(record),
            )
        except StorageError as error:
            raise InfrastructureError(str(error)) from error
        return record if won else replace(record, clip=self._committed_clip(record.key))

    def _clip(self, record: Record, mp4: bytes) -> Clip:
        request = record.request
        return Clip(
            path=f"{clip_folder(record.key)}/{video_name(mp4)}",
            sha256=hashlib.sha256(mp4).hexdigest(),
            bytes=len(mp4),
            codec="h264",
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            fps=request.fps,
        )

    def _committed_clip(self, key: str) -> Clip:
        meta = self.ledger.read_meta(key)
        assert meta is not None, f"lost the commit of {key}, but nobody won it"
        return Clip(**meta["video"])

    def _meta(self, record: Record) -> dict[str, Any]:
        """Everything that is needed to render the clip again, and how it was made."""
        assert record.clip is not None
        return {
            "key": record.key,
            "ids": list(record.ids),
            "request": asdict(record.request),
            "video": asdict(record.clip),
            "model": self.config.model,
            "numerics": self.config.numerics,
            "topology": record.topology,
            "timings_s": {stage: round(seconds, 4) for stage, seconds in record.timings_s.items()},
            "attempts": record.attempts,
            "versions": self.versions,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": self.config.run,
            "tags": record.tags,
            "notes": list(record.notes),
        }

    def healthy(self) -> bool:
        """Whether the device still works."""
        return is_healthy(self.worker.device)

    def close(self) -> None:
        """Drop the VAE."""
        self.vae = None
