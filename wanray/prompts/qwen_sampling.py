"""How a Qwen's tokens are drawn: each row of a batch by a generator of its own.

Shape suffixes: B batch, K candidates, L tokens, V vocabulary. Knows no checkpoint and no question.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessor


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
    """Draws each row's token by the row's generator, and leaves greedy decoding no other.

    The draw is made on the CPU, so that the same logits give the same answer on every device.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self.sampling = sampling
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] that are 0 at each row's drawn token and minus infinity elsewhere."""
        best = scores.topk(min(self.sampling.top_k, scores.shape[-1]))
        logits_BK = best.values.double().cpu() / self.sampling.temperature
        places = [self._draw(*row) for row in zip(logits_BK, self.generators, strict=True)]
        chosen_B1 = best.indices.gather(-1, torch.tensor(places, device=scores.device)[:, None])
        return torch.full_like(scores, float("-inf")).scatter(-1, chosen_B1, 0)

    def _draw(self, logits_K: torch.Tensor, generator: torch.Generator) -> int:
        """A place in `logits_K`, which fall: the fewest that hold `top_p`, drawn by their shares."""
        shares = logits_K.softmax(-1)
        sums = shares.cumsum(-1)
        sums = sums[sums - shares < self.sampling.top_p]
        draw = torch.rand((), generator=generator, dtype=torch.float64) * sums[-1]
        return min(int(torch.searchsorted(sums, draw, right=True)), len(sums) - 1)


def greedy(config: GenerationConfig) -> GenerationConfig:
    """Of the checkpoint's `config` what `SeededChoice` leaves to transformers."""
    ends = config.eos_token_id
    return GenerationConfig(
        do_sample=False,
        eos_token_id=ends if isinstance(ends, list) else [ends],
        pad_token_id=config.pad_token_id,
        repetition_penalty=config.repetition_penalty,
    )
