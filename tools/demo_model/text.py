"""The text side: a tokenizer that knows the words of the prompts and no others, and a small UMT5.

Shape suffixes: B batch, L tokens, D text width.
"""

import math
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from tools.demo_model.scenes import words
from wanray.models.state import MAX_TOKENS

TEXT_DIM = 64
CONTEXT = 12
"""Tokens of text that a training step looks at; no prompt of ours is longer."""
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, whatever its case and the punctuation around it; others are `<unk>`."""
    vocabulary = {token: number for number, token in enumerate([PAD, END, UNKNOWN, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
    )


def make_text_encoder() -> UMT5EncoderModel:
    """Two layers, trained together with the first transformer."""
    torch.manual_seed(1)
    config = UMT5Config(
        vocab_size=3 + len(words()),
        d_model=TEXT_DIM,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config)


def embed(tokenizer: Any, encoder: UMT5EncoderModel, prompts: list[str]) -> torch.Tensor:
    """Embeddings [B, CONTEXT, D], zero behind each prompt's own tokens, as Wan's are."""
    tokens = tokenizer(prompts, padding="max_length", max_length=CONTEXT, return_tensors="pt").to(
        encoder.device
    )
    states_BLD = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return states_BLD * tokens.attention_mask[..., None]


class _ShortContext(WanAttnProcessor):
    """Cross-attention to `CONTEXT` tokens, the last of which counts for all that are left out.

    Wan pads texts to 512 tokens with zeros and attends to the pads; equal keys in number n are one key with
    log n added to its score. Training looks at 12 tokens and learns what 512 would have taught.
    """

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, *_: object
    ) -> torch.Tensor:
        scores = hidden_states.new_zeros(1, 1, 1, CONTEXT)
        scores[..., -1] = math.log(MAX_TOKENS - CONTEXT + 1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, scores, None)


def attend_to_short_texts(transformer: Any) -> None:
    """Let `transformer` take embeddings of `CONTEXT` tokens in the place of 512, with equal results."""
    for block in transformer.blocks:
        block.attn2.set_processor(_ShortContext())
