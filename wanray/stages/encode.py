"""Text to embeddings: prompt and negative prompt through UMT5. Equal texts are encoded once."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from wanray.checkpoint.vocabulary import Vocabulary
from wanray.errors import ConfigError
from wanray.models.device import are_healthy
from wanray.models.state import DTYPES, MAX_TOKENS
from wanray.models.text import Embedding, TextEncoder
from wanray.records import Record
from wanray.stage import Report, Worker
from wanray.stages.batcher import Batcher
from wanray.stages.configs import EncodeConfig
from wanray.stages.kept import Kept, place
from wanray.stages.payload import Payload, pack_tensors, unpack_tensors

CACHED_TEXTS = 64


class Encode:
    """Adds prompt and negative embeddings to the payload."""

    def __init__(self, config: EncodeConfig) -> None:
        self.config = config
        self.worker = Worker()
        self.encoder: TextEncoder | None = None
        self.vocabulary: Vocabulary | None = None
        self.kept = Kept("texts", config.cache_url, CACHED_TEXTS, pack_tensors, unpack_tensors)
        self.batcher = Batcher(self._encode)

    def setup(self, worker: Worker) -> None:
        """Load tokenizer and encoder."""
        self.worker = worker = self._placed(worker)
        torch.set_num_threads(worker.num_threads)
        config = self.config
        self.vocabulary = Vocabulary.read(config.tokenizer)
        official, dtype = config.mode == "official", DTYPES[config.dtype]
        self.encoder = TextEncoder(
            config.text_encoder,
            config.tokenizer,
            dtype,
            worker.device,
            official,
            config.int8,
            worker.devices,
        )

    def _placed(self, worker: Worker) -> Worker:
        if self.config.t5 == "gpu" and worker.device == "cpu":
            raise ConfigError(
                "encode.t5 is gpu, but the workers of pools.encode have none: give them one "
                "(pools.encode.resources={GPU: 1}), or set encode.t5=cpu"
            )
        return replace(worker, device="cpu") if self.config.t5 == "cpu" else worker

    def run(self, record: Record, report: Report) -> Record:
        """Encode both texts of the request."""
        prompt, negative = self.embed(record.prompt), self.embed(record.request.negative_prompt)
        notes = [*_cut_note("prompt", prompt), *_cut_note("negative_prompt", negative)]
        if self.vocabulary and (unknown := self.vocabulary.unknown(record.prompt)):
            notes.append(f"prompt: the model does not know {', '.join(unknown)}")
        payload = Payload(prompt_LD=prompt.text_LD, negative_LD=negative.text_LD).pack()
        return replace(record, payload=payload, notes=(*record.notes, *notes))

    def embed(self, text: str) -> Embedding:
        """The embedding of `text`, from the cache if it was ever made."""
        config, worker = self.config, self.worker
        where = place(worker.device, worker.num_threads)
        parts = (config.digest, config.mode, config.dtype, where, text, *(["int8"] if config.int8 else []))
        tensors, num_tokens = self.kept.get(parts, lambda: self.batcher.get(text))
        return Embedding(tensors["text"], num_tokens)

    def _encode(self, texts: Sequence[str]) -> list[tuple[dict[str, torch.Tensor], int]]:
        assert self.encoder is not None, "setup comes first"
        return [
            ({"text": embedding.text_LD}, embedding.num_tokens)
            for embedding in self.encoder.encode_all(texts)
        ]

    def healthy(self) -> bool:
        """Whether its devices still work."""
        return are_healthy(self.worker.devices)

    def close(self) -> None:
        """Drop the encoder."""
        self.batcher.close()
        self.encoder = None


def _cut_note(column: str, embedding: Embedding) -> list[str]:
    if embedding.num_tokens <= MAX_TOKENS:
        return []
    return [
        f"{column} has {embedding.num_tokens} tokens; the last {embedding.num_tokens - MAX_TOKENS} were cut"
    ]
