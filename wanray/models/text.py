"""UMT5 text embeddings as Wan wants them: cleaned, trimmed, zero-padded after the encoder.

Shape suffixes: L tokens, D text width, B batch.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ftfy
import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from wanray.checkpoint import Component
from wanray.models.int8 import load_int8
from wanray.models.load import load_network
from wanray.models.spread import spread
from wanray.models.state import MAX_TOKENS
from wanray.sizing import TEXT_BUCKETS


def clean_prompt(text: str) -> str:
    """Repair mojibake, unescape HTML twice, collapse white space: as the official tokenizer wrapper."""
    unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", unescaped.strip()).strip()


@dataclass(frozen=True, slots=True)
class Embedding:
    """The embedding of one text.

    text_LD: in the encoder's dtype, on the CPU, trimmed to the tokens that were used.
    num_tokens: what the text needed; more than `MAX_TOKENS` means that its end was cut.
    """

    text_LD: torch.Tensor
    num_tokens: int


class TextEncoder:
    """UMT5 with its tokenizer."""

    def __init__(
        self,
        component: Component,
        tokenizer: str,
        dtype: torch.dtype,
        device: str,
        official: bool = True,
        int8: bool = False,
        devices: Sequence[str] = (),
    ) -> None:
        """official: pad to `TEXT_BUCKETS`, with the official alignment of weights; else as diffusers does.

        int8: keep the weights of linear layers in int8 (`wanray.models.int8`).
        devices: if there are several, the layers are divided among them; the first is `device`.
        """
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # it takes a long prompt for a mistake; we cut and note it
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        load = load_int8 if int8 else load_network
        is_spread = len(devices) > 1
        self.encoder = load(component, dtype, "cpu" if is_spread else device, aligned=official)
        if is_spread:
            _spread_layers(self.encoder.encoder, devices)
        self.device = device
        self.buckets = TEXT_BUCKETS if official else (MAX_TOKENS,)

    def encode(self, text: str) -> Embedding:
        """Embed one text (official: `wan/modules/t5.py`, T5EncoderModel)."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed texts, those of one bucket together; each is embedded as if it were alone."""
        tokens = [self._tokens(text) for text in texts]
        embeddings: dict[int, Embedding] = {}
        for bucket in self.buckets:
            chosen = [index for index, (ids, _) in enumerate(tokens) if self._bucket(ids) == bucket]
            states = self._forward([tokens[index][0] for index in chosen], bucket) if chosen else []
            for index, text_LD in zip(chosen, states, strict=True):
                embeddings[index] = Embedding(text_LD, tokens[index][1])
        return [embeddings[index] for index in range(len(texts))]

    def _tokens(self, text: str) -> tuple[list[int], int]:
        """What the encoder is given, at most `MAX_TOKENS`, and how many the text needs."""
        cleaned = clean_prompt(text)
        ids = self.tokenizer(cleaned, max_length=MAX_TOKENS, truncation=True).input_ids
        return ids, len(ids) if len(ids) < MAX_TOKENS else len(self.tokenizer(cleaned).input_ids)

    def _bucket(self, ids: list[int]) -> int:
        return next(bucket for bucket in self.buckets if len(ids) <= bucket)

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]], bucket: int) -> list[torch.Tensor]:
        """The states [L, D] of each row's own tokens."""
        padded = self.tokenizer.pad(
            {"input_ids": rows}, padding="max_length", max_length=bucket, return_tensors="pt"
        ).to(self.device)
        states_BLD = self.encoder(padded.input_ids, padded.attention_mask).last_hidden_state
        return [state_LD[: len(ids)].cpu().clone() for state_LD, ids in zip(states_BLD, rows, strict=True)]


def _spread_layers(stack: Any, devices: Sequence[str]) -> None:
    """Divide the embeddings and layers of a UMT5 so that each device holds about as many bytes."""
    parts = [stack.embed_tokens, *stack.block, stack.final_layer_norm]
    sizes = [sum(tensor.nbytes for tensor in part.state_dict().values()) for part in parts]
    spread([[part] for part in parts], sizes, devices)
