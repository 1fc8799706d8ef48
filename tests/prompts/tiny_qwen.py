"""Tiny random Qwen checkpoints: real networks, tokenizers and chat templates, of a few hundred kilobytes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessorPil,
)

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
]
NUM_BYTES = 256
SPACE, NEWLINE = "\u0120", "\u010a"
"""As byte-level vocabularies write them."""
NUM_ENDS = 24
"""Ordinary tokens that end an answer as well: a random network would else hardly ever find an end."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
TEXT = {
    "vocab_size": NUM_BYTES + len(SPECIAL),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,  # far from uniform: what was asked must tell in what is answered
}
EYES = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 4,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [1],
    "initializer_range": 0.3,
}


def write_qwen(folder: str | Path) -> None:
    """Write a random Qwen2 with what transformers needs to load it; the same weights each time."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    write(Qwen2ForCausalLM(Qwen2Config(**TEXT)), tokenizer, folder)


def write_qwen_vl(folder: str | Path) -> None:
    """Write a random Qwen2.5-VL; the same weights each time."""
    tokenizer = make_tokenizer()
    names = {"image_token_id": "image_pad", "vision_start_token_id": "vision_start"}
    names["vision_end_token_id"] = "vision_end"
    ids = {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": rope}, vision_config=EYES, **ids)
    torch.manual_seed(0)
    write(Qwen2_5_VLForConditionalGeneration(config), tokenizer, folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)


def write(model: torch.nn.Module, tokenizer: Qwen2TokenizerFast, folder: str | Path) -> None:
    """Write model and tokenizer, with the sampling of Qwen's own checkpoints."""
    ends = [tokenizer.eos_token_id, *range(0, NUM_BYTES, NUM_BYTES // NUM_ENDS)]
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(words: Sequence[str] = ()) -> Qwen2TokenizerFast:
    """Byte-level BPE like Qwen's, without a single merge.

    words: further tokens, of plain letters and spaces, which a model may say and nobody can write.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    further = [word.replace(" ", SPACE) for word in words]
    vocabulary = {token: number for number, token in enumerate([*letters, *further])}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    return Qwen2TokenizerFast(
        tokenizer_object=bare,
        vocab=vocabulary,
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        extra_special_tokens=SPECIAL,
        chat_template=TEMPLATE,
    )
