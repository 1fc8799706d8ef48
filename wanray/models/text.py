"""UMT5 text embeddings as Wan wants them: cleaned, trimmed, zero-padded after the encoder.

Shape suffixes: L tokens, D text width, B batch.
"""

import html
import re
from dataclasses import dataclass

import ftfy
import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from wanray.checkpoint import Component
from wanray.models.load import load_network
from wanray.models.state import MAX_TOKENS


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
        self, component: Component, tokenizer: str, dtype: torch.dtype, device: str, official: bool = True
    ) -> None:
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # it takes a long prompt for a mistake; we cut and note it
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        self.encoder = load_network(component, dtype, device, aligned=official)
        self.device = device

    @torch.inference_mode()
    def encode(self, text: str) -> Embedding:
        """Embed one text (official: `wan/modules/t5.py`, T5EncoderModel)."""
        cleaned = clean_prompt(text)
        tokens = self.tokenizer(
            cleaned, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        mask_BL = tokens.attention_mask.to(self.device)
        states_BLD = self.encoder(tokens.input_ids.to(self.device), mask_BL).last_hidden_state
        length = int(mask_BL.sum())
        needed = length if length < MAX_TOKENS else len(self.tokenizer(cleaned).input_ids)
        return Embedding(states_BLD[0, :length].cpu().clone(), needed)
