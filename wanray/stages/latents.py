"""The final latents of a clip that an earlier render saved, as if they had just been denoised."""

from dataclasses import replace

from safetensors import SafetensorError
from safetensors.torch import load

from wanray.errors import InfrastructureError, InputError, StorageError
from wanray.models.state import DenoiseState
from wanray.records import Record
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.stage import Report, Worker
from wanray.stages.configs import LatentsConfig
from wanray.stages.payload import Payload
from wanray.storage import Store


class ReadLatents:
    """Fills the payload from the clip that the record's source `latents` names."""

    def __init__(self, config: LatentsConfig) -> None:
        self.config = config

    def setup(self, worker: Worker) -> None:
        """Open the store."""
        self.ledger = Ledger(Store.open(self.config.url))

    def run(self, record: Record, report: Report) -> Record:
        """Take over latents, topology, timings and notes of the clip."""
        key = record.sources["latents"]
        path = f"{clip_folder(key)}/latents.safetensors"
        try:
            meta, data = self.ledger.read_meta(key), self.ledger.store.read(path)
            latents_CTHW = load(data)["latents"]
        except StorageError as error:
            raise InfrastructureError(str(error)) from error
        except (FileNotFoundError, KeyError, SafetensorError) as error:
            raise InputError(f"{self.ledger.store.uri(path)} cannot be used: {error!r}") from error
        assert meta is not None, f"{key} was committed when the plan was made"
        state = DenoiseState(latents_CTHW[None], record.request.steps)
        return replace(
            record,
            payload=Payload(state=state).pack(),
            topology=meta["topology"],
            timings_s=meta["timings_s"],
            extended=meta.get("extended", {}),
            notes=tuple(meta["notes"]),
        )

    def healthy(self) -> bool:
        """Nothing can break."""
        return True

    def close(self) -> None:
        """Nothing to free."""
