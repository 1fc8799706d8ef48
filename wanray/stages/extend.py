"""Prompt extension: a language model writes what is encoded. Equal prompts are extended once."""

import os
from dataclasses import replace
from typing import Any

import numpy as np

from wanray.errors import ConfigError, InfrastructureError, InputError, StageError
from wanray.prompts import ChatClient, Question, extended
from wanray.records import NOT_EXTENDED, Record, Request, canonical_json
from wanray.registry import prompt_kind
from wanray.stage import Report, Worker, load
from wanray.stages.batcher import Batcher
from wanray.stages.configs import ExtendConfig
from wanray.stages.fetch import read_image
from wanray.stages.kept import Kept

KEPT_PROMPTS = 4096
SEEN = ("image", "last_image")
"""Inputs that a model is shown, in this order; those of VACE say how a clip is made, not what is in it."""


class Extend:
    """Adds the extended prompt to records."""

    def __init__(self, config: ExtendConfig) -> None:
        self.config = config
        self.device = "cpu"
        self.models: dict[bool, Any] = {}
        self.prompts = Kept("extensions", config.cache_url, KEPT_PROMPTS, str.encode, bytes.decode)

    def setup(self, worker: Worker) -> None:
        """Load the models, or make ready to call them."""
        self.device = worker.device
        for has_images, model in self.config.models.items():
            same = [made for other, made in self.models.items() if self.config.models[other] == model]
            self.models[has_images] = same[0] if same else self._model(model, worker)

    def _model(self, model: str, worker: Worker) -> Any:
        config = self.config
        if config.is_local:
            return _Together(load("wanray.prompts.qwen:QwenExtender")(model, worker.device))
        key = os.environ.get(config.api_key_env) if config.api_key_env else None
        if config.api_key_env and not key:
            raise ConfigError(
                f"extension.api_key_env: {config.api_key_env} is not set where prompts are extended: set it "
                "there, or set extension.api_key_env=null for an endpoint that needs no key"
            )
        return ChatClient(
            config.base_url,
            model,
            key,
            timeout_s=config.timeout_s,
            retries=config.retries,
            requests_per_minute=config.requests_per_minute,
        )

    def run(self, record: Record, report: Report) -> Record:
        """The record with the prompt to encode, or with the reason why it stays as it was written."""
        request = record.request
        if request.extension == NOT_EXTENDED:
            return record
        try:
            parts = (request.prompt, *_images(request), canonical_json(request.extension))
            prompt = self.prompts.get(parts, lambda: self._prompt(record))
        except (InputError, InfrastructureError) as error:
            if self.config.on_error == "fail" or not request.prompt.strip():
                raise
            return replace(
                record,
                extended={"kept": str(error)},
                notes=(*record.notes, f"prompt: rendered as written, it could not be extended: {error}"),
            )
        return replace(record, extended={"prompt": prompt})

    def _prompt(self, record: Record) -> str:
        model = self.models[bool(_images(record.request))]
        return extended(model, self._question(record), self.config.language)

    def _question(self, record: Record) -> Question:
        request = record.request
        kind = prompt_kind(request.task, bool(request.prompt.strip()))
        return Question(
            text=request.prompt,
            images=tuple(self._image(record, sha256) for sha256 in _images(request)),
            system=self.config.templates[kind],
            seed=request.extension["seed"] + request.extension["variant"],
            max_tokens=self.config.max_tokens,
        )

    def _image(self, record: Record, sha256: str) -> np.ndarray:
        return read_image("image", record.sources[sha256], sha256, self.config.media).rgb_HWC

    def healthy(self) -> bool:
        """A model on a GPU may be broken by what it could not do; an endpoint is not."""
        return not self.config.is_local or load("wanray.models.device:are_healthy")([self.device])

    def close(self) -> None:
        """Close connections, drop models."""
        for model in self.models.values():
            model.close()
        self.models = {}


class _Together:
    """A local model, which answers what several threads ask at the same time in one batch."""

    def __init__(self, model: Any) -> None:
        self.model, self.batcher = model, Batcher(model.ask_all)

    def ask(self, question: Question) -> str:
        answer = self.batcher.get(question)
        if isinstance(answer, StageError):
            raise answer
        return answer

    def close(self) -> None:
        self.batcher.close()
        self.model.close()


def _images(request: Request) -> tuple[str, ...]:
    """Digests of the images that the model sees."""
    if request.task == "vace":
        return ()
    return tuple(sha256 for column in SEEN for sha256 in request.inputs.get(column, ()))
