"""Latents to a committed clip: VAE, video, poster, upload, commit. Frames never leave this process.

They are decoded and encoded a few at a time, so memory does not grow with the length of the clip.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from wanray.errors import ConfigError, FailureCause, InfrastructureError, StorageError
from wanray.media import probe_video, shown
from wanray.models.device import are_healthy
from wanray.models.load import load_network
from wanray.models.vae import decode_stream, spread_decoder, to_uint8
from wanray.records import Clip, Record
from wanray.registry import TASKS
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.sinks.video import AudioSource, Encoded, MiddleFrame, encode_frames, encode_poster
from wanray.stage import Report, Worker
from wanray.stages.configs import DecodeConfig
from wanray.stages.fetch import fetch
from wanray.stages.inputs import SAME_SPEED, speed
from wanray.stages.payload import Payload
from wanray.storage import Store

TILED = "decoded in tiles, because memory ran out: pixels differ slightly from what the key promises"
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
        aligned = self.config.numerics["mode"] == "official"
        self.vae = load_network(self.config.vae, torch.float32, worker.device, aligned=aligned)
        if len(worker.devices) > 1:
            spread_decoder(self.vae, worker.devices)
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
        tiled = self._is_tiled(record)
        encoded, poster, notes = self._encode(record, state.latents_BCTHW, tiled)
        if tiled != self.config.numerics["vae_tiling"]:
            notes = (*notes, TILED)
        timings_s = record.timings_s | {"decode": time.monotonic() - start}
        clip = _clip(record, encoded)
        record = replace(record, clip=clip, payload=b"", timings_s=timings_s, notes=(*record.notes, *notes))
        extra = {}
        if self.config.output.save_latents:
            extra["latents.safetensors"] = save({"latents": state.latents_BCTHW[0].contiguous()})
        try:
            won = self.ledger.commit(record, encoded, poster, extra, self._meta(record, tiled))
        except StorageError as error:
            raise InfrastructureError(str(error)) from error
        return record if won else replace(record, clip=self._committed_clip(record.key))

    def _is_tiled(self, record: Record) -> bool:
        """As the numerics say, or because memory ran out at an earlier try, where that is allowed."""
        too_large = (
            item.cause is FailureCause.OUT_OF_MEMORY for item in record.tries if item.stage == "decode"
        )
        return self.config.numerics["vae_tiling"] or (self.config.tile_when_out_of_memory and any(too_large))

    def _encode(
        self, record: Record, latents_BCTHW: torch.Tensor, tiled: bool
    ) -> tuple[Encoded, bytes, tuple[str, ...]]:
        """The clip's files, its poster, and notes."""
        request = record.request
        audio, notes = self._audio(record)
        tap = MiddleFrame(request.num_frames)
        encoded = encode_frames(
            tap(self._frames(latents_BCTHW, tiled)),
            request.fps,
            self.config.output.video,
            {"title": request.prompt[:200], "comment": f"wanray {record.key}"},
            still=TASKS[request.task].max_frames == 1,
            audio=audio,
        )
        return encoded, encode_poster(tap.frame), notes

    def _frames(self, latents_BCTHW: torch.Tensor, tiled: bool) -> Iterator[np.ndarray]:
        for frames_FCHW in decode_stream(self.vae, latents_BCTHW, tiled):
            yield from to_uint8(frames_FCHW).numpy()

    def _audio(self, record: Record) -> tuple[AudioSource | None, tuple[str, ...]]:
        """The source's sound, where it is asked for, there, and in time with the clip."""
        request = record.request
        if not self.config.output.video.audio or "video" not in request.inputs:
            return None, ()
        (sha256,) = request.inputs["video"]
        data = fetch("video", record.sources[sha256], sha256, self.config.media)
        if abs(speed(probe_video(data), request) - 1) > SAME_SPEED:
            return None, ("audio is left out: the clip plays at another speed than its source",)
        return AudioSource(data), ()

    def _committed_clip(self, key: str) -> Clip:
        meta = self.ledger.read_meta(key)
        assert meta is not None, f"lost the commit of {key}, but nobody won it"
        return Clip(**meta["video"])

    def _meta(self, record: Record, tiled: bool) -> dict[str, Any]:
        """Everything that is needed to render the clip again, and how it was made."""
        assert record.clip is not None
        return {
            "key": record.key,
            "ids": list(record.ids),
            "request": asdict(record.request),
            "extended": record.extended,
            "inputs": _inputs(record),
            "video": asdict(record.clip),
            "model": self.config.model,
            "numerics": self.config.numerics | {"vae_tiling": tiled},
            "topology": record.topology,
            "timings_s": {stage: round(seconds, 4) for stage, seconds in record.timings_s.items()},
            "attempts": record.attempts,
            "failed_tries": [asdict(item) for item in record.tries],
            "versions": self.versions,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": self.config.run,
            "tags": record.tags,
            "notes": list(record.notes),
        }

    def healthy(self) -> bool:
        """Whether its devices still work."""
        return are_healthy(self.worker.devices)

    def close(self) -> None:
        """Drop the VAE."""
        self.vae = None


def _clip(record: Record, encoded: Encoded) -> Clip:
    request = record.request
    return Clip(
        path=f"{clip_folder(record.key)}/{encoded.path}",
        sha256=encoded.sha256,
        bytes=encoded.num_bytes,
        codec=encoded.codec,
        width=request.width,
        height=request.height,
        num_frames=encoded.num_frames,
        fps=request.fps,
    )


def _inputs(record: Record) -> dict[str, list[dict[str, str]]]:
    """Where the request's media were read; a URL may hold secrets, which are left out."""
    return {
        column: [{"sha256": sha256, "uri": shown(record.sources[sha256])} for sha256 in digests]
        for column, digests in record.request.inputs.items()
    }
