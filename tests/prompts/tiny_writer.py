"""Tiny checkpoints that write English: whatever they are asked, they answer with one of SENTENCES.

Which one it is, the seed and all that is asked decide. A sentence is a chain of tokens, each a word that
asks for the next; random attention over the question tips the scales where several words may follow.
"""

from itertools import chain, pairwise, product
from pathlib import Path

import torch
from tiny_qwen import NEWLINE, SPACE, TEMPLATE, TEXT, make_tokenizer, write
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2TokenizerFast,
)

CHOICES = (
    ("A grey", "A black", "A white", "A striped"),
    (" cat",),
    (" walks", " runs", " creeps", " strolls"),
    (" slowly", " softly", " calmly", " proudly"),
    (" along",),
    (" an old stone wall",),
    (" in warm", " in cold", " in fading", " in golden"),
    (" evening light.",),
)
"""Tokens that may follow one another. Each stands here once: a chain knows only the last one."""
SENTENCES = frozenset(map("".join, product(*CHOICES)))
QUIET = {"num_hidden_layers": 1, "initializer_range": 0.05}
"""Attention that looks at everything a little."""
CERTAIN, TIPPED, HEARD = 3.0, 0.4, 0.05
"""Weights: of a word that may follow over all others, of what tips the scales, of what attention hears."""
IMAGE_PX, PATCH_PX = 28, 14


def write_writer(folder: str | Path) -> None:
    """Write a Qwen2; the same weights each time."""
    tokenizer = make_tokenizer(list(chain(*CHOICES)))
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(_text_config(tokenizer))
    _teach(model.model, model.lm_head, tokenizer)
    write(model, tokenizer, folder)


def write_seeing_writer(folder: str | Path) -> None:
    """Write a Llava of CLIP and Qwen2; the same weights each time.

    `transformers serve` reads Qwen's own VL checkpoints only where torchvision is installed.
    """
    tokenizer = make_tokenizer(list(chain(*CHOICES)))
    eyes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlavaConfig(
        text_config=_text_config(tokenizer),
        vision_config=CLIPVisionConfig(**eyes, image_size=IMAGE_PX, patch_size=PATCH_PX),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        image_seq_length=(IMAGE_PX // PATCH_PX) ** 2,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    _teach(model.model.language_model, model.lm_head, tokenizer)
    write(model, tokenizer, folder)
    LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_PX}, crop_size={"height": IMAGE_PX, "width": IMAGE_PX}
        ),
        tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        image_token="<|image_pad|>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def _text_config(tokenizer: Qwen2TokenizerFast) -> Qwen2Config:
    """Of a network with a place of its own for every token."""
    per_head = 2 * TEXT["num_attention_heads"]
    width = -(-len(tokenizer) // per_head) * per_head
    return Qwen2Config(**{**TEXT, **QUIET, "vocab_size": len(tokenizer), "hidden_size": width})


def _teach(network: torch.nn.Module, lm_head: torch.nn.Linear, tokenizer: Qwen2TokenizerFast) -> None:
    with torch.no_grad():
        torch.nn.init.eye_(network.embed_tokens.weight)
        for layer in network.layers:
            layer.self_attn.o_proj.weight.mul_(HEARD)
            layer.mlp.down_proj.weight.zero_()
        torch.nn.init.normal_(lm_head.weight, std=TIPPED)
        words = [[word.replace(" ", SPACE) for word in choice] for choice in CHOICES]
        steps = map(tokenizer.convert_tokens_to_ids, [[NEWLINE], *words, [tokenizer.eos_token]])
        for before, after in pairwise(steps):
            lm_head.weight[:, before] = 0.0
            for token in before:
                lm_head.weight[after, token] = CERTAIN
