"""A Qwen2, Qwen2.5 or Qwen3 in this process, text only or with eyes (VL), that extends prompts.

An answer is a function of checkpoint, question and seed: each question runs alone, as padding rows to one
batch changes the last bits of bfloat16 logits, and with them sooner or later a token.

Shape suffixes: B batch (always 1), L tokens, V vocabulary. Of what a good answer is, this file knows nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import logging as transformers_logging

from wanray.errors import InputError
from wanray.prompts.question import CutAnswerError, Question
from wanray.prompts.qwen_folder import QwenFolder, read_folder

PIXELS = {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}
"""Least and most pixels of an image as the model sees it (official: `wan/utils/prompt_extend.py`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a token is drawn."""

    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 20

    @classmethod
    def of(cls, config: GenerationConfig) -> "Sampling":
        """What the checkpoint asks for; our defaults for one that is greedy, be it in disguise.

        Qwen2-VL has temperature 0.01 and top_k 1, Qwen2.5-VL has temperature 1e-6: no seed would matter.
        """
        temperature = config.temperature or 0.0
        if not config.do_sample or temperature < 0.1 or config.top_k == 1:
            return cls()
        top_p = cls.top_p if config.top_p is None else config.top_p
        return cls(temperature=temperature, top_p=top_p, top_k=config.top_k or cls.top_k)


class SeededChoice(LogitsProcessor):
    """Draws each token by a generator of its own, and leaves greedy decoding no other.

    The draw is made on the CPU, so that the same logits give the same answer on every device.
    """

    def __init__(self, sampling: Sampling, seed: int) -> None:
        self.sampling = sampling
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [1, V] that are 0 at the drawn token and minus infinity elsewhere."""
        best = scores[0].topk(min(self.sampling.top_k, scores.shape[-1]))
        chosen = best.indices[self._draw(best.values.double().cpu() / self.sampling.temperature)]
        only = torch.full_like(scores, float("-inf"))
        only[0, chosen] = 0
        return only

    def _draw(self, logits: torch.Tensor) -> int:
        """A place in `logits`, which fall: the fewest that hold `top_p`, drawn by their shares."""
        shares = logits.softmax(-1)
        sums = shares.cumsum(-1)
        sums = sums[sums - shares < self.sampling.top_p]
        draw = torch.rand((), generator=self.generator, dtype=torch.float64) * sums[-1]
        return min(int(torch.searchsorted(sums, draw, right=True)), len(sums) - 1)


class QwenExtender:
    """An `Extender` over a local checkpoint folder; close it to give its memory back.

    Raises:
        ConfigError: `path` lacks files, or is no Qwen.
    """

    def __init__(self, path: str, device: str = "cpu", dtype: str = "bfloat16") -> None:
        transformers_logging.disable_progress_bar()
        self.folder: QwenFolder = read_folder(path)
        auto: Any = AutoModelForImageTextToText if self.folder.has_eyes else AutoModelForCausalLM
        model = auto.from_pretrained(path, dtype=getattr(torch, dtype), local_files_only=True)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self.model: Any = model.to(device).eval()
        self.sampling = Sampling.of(self.model.generation_config)
        self.model.generation_config = _greedy(self.model.generation_config)
        if self.folder.has_eyes:
            # AutoProcessor would need torchvision, for the videos that it could read as well.
            self.eyes = Qwen2VLImageProcessorPil.from_pretrained(path, local_files_only=True)

    def ask(self, question: Question) -> str:
        """The answer, without the special tokens.

        Raises:
            InputError: it has images, and this is a text checkpoint; or an image is no image for Qwen.
            CutAnswerError: the answer has no end within `max_tokens`.
        """
        return self.ask_all([question])[0]

    def ask_all(self, questions: Sequence[Question]) -> list[str]:
        """The answers, in order; each is what `ask` gives. Raises what `ask` raises."""
        return [self._answer(question) for question in questions]

    def close(self) -> None:
        """Free the model; the extender cannot be used after."""
        self.model = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _answer(self, question: Question) -> str:
        inputs = {name: value.to(self.model.device) for name, value in self._inputs(question).items()}
        choice = SeededChoice(self.sampling, question.seed)
        ids_BL = self.model.generate(
            **inputs, max_new_tokens=question.max_tokens, logits_processor=LogitsProcessorList([choice])
        )
        answer_L = ids_BL[0, inputs["input_ids"].shape[1] :]
        if int(answer_L[-1]) not in self.model.generation_config.eos_token_id:
            raise CutAnswerError(
                f"the answer of {self.folder.path} has no end after max_tokens={question.max_tokens} tokens: "
                "raise max_tokens, or take another seed"
            )
        return self.tokenizer.decode(
            answer_L[:-1], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _inputs(self, question: Question) -> dict[str, torch.Tensor]:
        """What the model takes."""
        ids_L = self.tokenizer(self._chat(question), return_tensors="pt").input_ids[0]
        seen: dict[str, torch.Tensor] = {}
        if question.images:
            seen = self._look(question.images)
            ids_L = self._make_room(ids_L, seen["image_grid_thw"])
            seen["mm_token_type_ids"] = (ids_L == self.model.config.image_token_id).int()[None]
        return {"input_ids": ids_L[None], "attention_mask": torch.ones_like(ids_L)[None], **seen}

    def _chat(self, question: Question) -> str:
        """The question in the checkpoint's own form, text before images as the official code has it."""
        text: Any = question.text
        if question.images:
            text = [{"type": "text", "text": question.text}, *[{"type": "image"}] * len(question.images)]
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    def _look(self, images: Sequence[Any]) -> dict[str, torch.Tensor]:
        """The patches of all images, and of each its grid [1, rows, columns]."""
        if not self.folder.has_eyes:
            raise InputError(
                f"{self.folder.path} is a text checkpoint ({self.folder.model_type}) and cannot see the "
                "image of this prompt: extend it with a VL checkpoint such as Qwen2.5-VL-7B-Instruct"
            )
        try:
            return dict(
                self.eyes(list(images), size=PIXELS, input_data_format="channels_last", return_tensors="pt")
            )
        except ValueError as error:
            sizes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
            raise InputError(f"Qwen cannot take images of {sizes} pixels: {error}") from error

    def _make_room(self, ids_L: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """`ids_L` with each image's one place repeated for as many tokens as the image has."""
        places = (ids_L == self.model.config.image_token_id).nonzero()[:, 0]
        if len(places) != len(grid):
            raise InputError("the prompt contains <|image_pad|>, by which Qwen marks images: take it out")
        counts = torch.ones_like(ids_L)
        counts[places] = grid.prod(-1) // self.eyes.merge_size**2
        return ids_L.repeat_interleave(counts)


def _greedy(config: GenerationConfig) -> GenerationConfig:
    """Of the checkpoint's `config` what `SeededChoice` leaves to transformers."""
    ends = config.eos_token_id
    return GenerationConfig(
        do_sample=False,
        eos_token_id=ends if isinstance(ends, list) else [ends],
        pad_token_id=config.pad_token_id,
        repetition_penalty=config.repetition_penalty,
    )
