"""What is asked of a language model about one prompt, and who answers. Knows no endpoint and no model."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wanray.errors import FailureCause, InfrastructureError, InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One prompt to extend."""

    text: str
    """The prompt as written; empty where there is only an image."""
    images: tuple[np.ndarray, ...] = ()
    """RGB uint8 [H, W, 3]; the first frame, then the last frame."""
    system: str
    """The system prompt, see `templates`."""
    seed: int
    max_tokens: int = 512
    """Of the answer."""


class Extender(Protocol):
    """Who writes longer prompts."""

    def ask(self, question: Question) -> str:
        """The answer as it came.

        Raises:
            InputError: this question is refused, or (CutAnswerError) its answer has no end.
            InfrastructureError: there is no answer now, after all retries.
        """
        ...

    def close(self) -> None:
        """Free what is held; may be called twice."""
        ...


class CutAnswerError(InputError):
    """The answer reached `max_tokens`; another seed may give a shorter one."""


class EndpointError(InfrastructureError):
    """An endpoint that does not answer, or not with anything that can be understood."""

    cause = FailureCause.ERROR
