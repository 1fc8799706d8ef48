"""Text to embeddings: prompt and negative prompt through UMT5. Equal texts are encoded once per worker."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from wanray.models.device import is_healthy
from wanray.models.state import DTYPES, MAX_TOKENS
from wanray.models.text import Embedding, TextEncoder
from wanray.records import Record
from wanray.stage import Report, Worker
from wanray.stages.configs import EncodeConfig
from wanray.stages.payload import Payload

CACHED_TEXTS = 64


class Encode:
    """Adds prompt and negative embeddings to the payload."""

    def __init__(self, config: EncodeConfig) -> None:
        self.config = config
        self.worker = Worker()
        self.embed: Any = None

    def setup(self, worker: Worker) -> None:
        """Load tokenizer and encoder."""
        self.worker = worker
        torch.set_num_threads(worker.num_threads)
        config = self.config
        official, dtype = config.mode == "official", DTYPES[config.dtype]
        encoder = TextEncoder(config.text_encoder, config.tokenizer, dtype, worker.device, official)
        self.embed = lru_cache(CACHED_TEXTS)(encoder.encode)

    def run(self, record: Record, report: Report) -> Record:
        """Encode both texts of the request."""
        prompt, negative = self.embed(record.request.prompt), self.embed(record.request.negative_prompt)
        notes = [*_cut_note("prompt", prompt), *_cut_note("negative_prompt", negative)]
        payload = Payload(prompt_LD=prompt.text_LD, negative_LD=negative.text_LD).pack()
        return replace(record, payload=payload, notes=(*record.notes, *notes))

    def healthy(self) -> bool:
        """Whether the device still works."""
        return is_healthy(self.worker.device)

    def close(self) -> None:
        """Drop encoder and cache."""
        self.embed = None


def _cut_note(column: str, embedding: Embedding) -> list[str]:
    if embedding.num_tokens <= MAX_TOKENS:
        return []
    return [
        f"{column} has {embedding.num_tokens} tokens; the last {embedding.num_tokens - MAX_TOKENS} were cut"
    ]
