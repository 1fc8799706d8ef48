"""A Qwen2, Qwen2.5 or Qwen3 in this process, text only or with eyes (VL), that extends prompts.

Questions that come together are answered together, each by its own seed. An answer is a function of
checkpoint, question and seed; but padding before it and rows beside it may change the last bits of its
logits. In float32 the same tokens are drawn none the less, in bfloat16 sooner or later another one. A
question asked alone has no padding, and gets the same answer each time.

Shape suffixes: B batch, L tokens. Of what a good answer is, this file knows nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LogitsProcessorList,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import logging as transformers_logging

from wanray.errors import InputError, StageError
from wanray.prompts.question import CutAnswerError, Question
from wanray.prompts.qwen_folder import QwenFolder, read_folder
from wanray.prompts.qwen_sampling import Sampling, SeededChoice, greedy

PIXELS = {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}
"""Least and most pixels of an image as the model sees it (official: `wan/utils/prompt_extend.py`)."""


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
        self.model.generation_config = greedy(self.model.generation_config)
        if self.folder.has_eyes:
            # AutoProcessor would need torchvision, for the videos that it could read as well.
            self.eyes = Qwen2VLImageProcessorPil.from_pretrained(path, local_files_only=True)

    def ask(self, question: Question) -> str:
        """The answer, without the special tokens.

        Raises:
            InputError: it has images, and this is a text checkpoint; or an image is no image for Qwen.
            CutAnswerError: the answer has no end within `max_tokens`.
        """
        answer = self.ask_all([question])[0]
        if isinstance(answer, StageError):
            raise answer
        return answer

    def ask_all(self, questions: Sequence[Question]) -> list[str | StageError]:
        """Each question's answer, or the error that `ask` would raise, in order.

        One call of the model answers all that have images, and one all others; memory bounds how many.
        """
        answers: dict[int, str | StageError] = {}
        inputs: dict[int, dict[str, torch.Tensor]] = {}
        for place, question in enumerate(questions):
            try:
                inputs[place] = self._inputs(question)
            except InputError as error:
                answers[place] = error
        for has_images in (False, True):
            batch = [place for place in inputs if bool(questions[place].images) == has_images]
            asked = [questions[place] for place in batch]
            generated = self._generate(asked, [inputs[place] for place in batch]) if batch else []
            for place, question, ids in zip(batch, asked, generated, strict=True):
                answers[place] = self._read(question, ids)
        return [answers[place] for place in range(len(questions))]

    def close(self) -> None:
        """Free the model; the extender cannot be used after."""
        self.model = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _generate(
        self, questions: Sequence[Question], rows: Sequence[dict[str, torch.Tensor]]
    ) -> list[list[int]]:
        """Of each question the tokens that follow it; what follows its end, or its `max_tokens`, is void."""
        inputs = {name: value.to(self.model.device) for name, value in self._batch(rows).items()}
        choice = SeededChoice(self.sampling, [question.seed for question in questions])
        ids_BL = self.model.generate(
            **inputs,
            max_new_tokens=max(question.max_tokens for question in questions),
            logits_processor=LogitsProcessorList([choice]),
        )
        return ids_BL[:, inputs["input_ids"].shape[1] :].tolist()

    def _read(self, question: Question, ids: Sequence[int]) -> str | CutAnswerError:
        """The answer that `ids` begin with, if it has an end in time."""
        ends = self.model.generation_config.eos_token_id
        in_time = enumerate(ids[: question.max_tokens])
        length = next((place for place, token in in_time if token in ends), None)
        if length is None:
            return CutAnswerError(
                f"the answer of {self.folder.path} has no end after max_tokens={question.max_tokens} tokens: "
                "raise max_tokens, or take another seed"
            )
        return self.tokenizer.decode(
            ids[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _inputs(self, question: Question) -> dict[str, torch.Tensor]:
        """The question's own tokens [1, L], and what it shows."""
        ids_L = self.tokenizer(self._chat(question), return_tensors="pt").input_ids[0]
        if not question.images:
            return {"input_ids": ids_L[None]}
        seen = self._look(question.images)
        return {"input_ids": self._make_room(ids_L, seen["image_grid_thw"])[None], **seen}

    def _batch(self, rows: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """What the model takes, of questions that all have images or all have none."""
        longest = max(row["input_ids"].shape[1] for row in rows)
        batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0] if name != "input_ids"}
        padded = [_padded(row["input_ids"], longest) for row in rows]
        ids_BL, mask_BL = (torch.cat(part) for part in zip(*padded, strict=True))
        if "image_grid_thw" in batch:
            batch["mm_token_type_ids"] = (ids_BL == self.model.config.image_token_id).int()
        return {"input_ids": ids_BL, "attention_mask": mask_BL, **batch}

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


def _padded(ids_1L: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`ids_1L` with its first token repeated before it, and the mask of what is its own.

    Not the pad token: it ends an answer as well in some checkpoints, and transformers before 5.23 takes
    padding for something said, which `repetition_penalty` makes less likely.
    """
    missing = length - ids_1L.shape[1]
    mask_1L = torch.nn.functional.pad(torch.ones_like(ids_1L), (missing, 0))
    return torch.cat([ids_1L[:, :1].expand(1, missing), ids_1L], dim=1), mask_1L
