"""Gradient descent that may be stopped at any time and goes on where it was."""

import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tools.demo_model.muon import Muon
from tools.demo_model.progress import Progress

SAVE_EVERY_S = 120
WARM_UP_STEPS = 50
EMA_DECAY = 0.995
SMALL_LR = 3e-3
"""Of what is no matrix, against Muon's own rate for matrices; both follow one cosine."""


class Training:
    """Muon on every matrix and convolution of `network`, AdamW on the rest, an average of the weights.

    Each step draws from a generator of its own, seeded with the training's seed and the step's number: a
    training that was stopped and went on sees the clips that it would have seen.
    """

    def __init__(self, network: torch.nn.Module, file: Path, num_steps: int, lr: float, seed: int) -> None:
        """file: where weights and optimizers are kept; an earlier try's are gone on with."""
        self.network, self.file, self.num_steps, self.seed = network, file, num_steps, seed
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        tables = {id(module.weight) for module in network.modules() if isinstance(module, torch.nn.Embedding)}
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        matrices = [each for each in trained if _is_matrix(each) and id(each) not in tables]
        small = [each for each in trained if not _is_matrix(each) or id(each) in tables]
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (Muon(matrices, lr=lr), lr),
            (AdamW(small, lr=SMALL_LR, betas=(0.9, 0.99), weight_decay=0.0), SMALL_LR),
        ]
        self.step = 0
        if file.exists():
            self._restore(torch.load(file, map_location="cpu"))

    def run(self, loss_of: Callable[[np.random.Generator], torch.Tensor], probe: Callable[[], str]) -> None:
        """Go on to the last step. probe: a few words on how good the averaged weights are, now and then."""
        losses: deque[float] = deque(maxlen=100)
        saved = time.monotonic()
        with Progress(self.file.stem, self.step, self.num_steps) as progress:
            while self.step < self.num_steps:
                losses.append(self._descend(loss_of(np.random.default_rng((self.seed, self.step)))))
                progress.show(self.step, sum(losses) / len(losses))
                if self.step == self.num_steps or time.monotonic() - saved > SAVE_EVERY_S:
                    self._save()
                    progress.say(self.step, sum(losses) / len(losses), probe())
                    saved = time.monotonic()

    @property
    def averaged(self) -> torch.nn.Module:
        """The network with averaged weights."""
        return self.average.module

    def _descend(self, loss: torch.Tensor) -> float:
        self.network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer, lr in self.optimizers:
            optimizer.param_groups[0]["lr"] = lr * self._pace()
            optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return loss.item()

    def _pace(self) -> float:
        """What share of the learning rate this step takes: a short ramp, then a cosine to a hundredth."""
        cosine = (1 + math.cos(math.pi * self.step / self.num_steps)) / 2
        return min(1.0, (self.step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * cosine)

    def _save(self) -> None:
        kept = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
        }
        partial = self.file.with_suffix(".part")
        torch.save(kept, partial)
        partial.replace(self.file)

    def _restore(self, kept: dict[str, Any]) -> None:
        self.step = kept["step"]
        self.network.load_state_dict(kept["network"])
        self.average.load_state_dict(kept["average"])
        for (optimizer, _), state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)


def finished(file: Path, num_steps: int) -> dict[str, torch.Tensor] | None:
    """The averaged weights of a training that has come to its end."""
    if not file.exists():
        return None
    kept = torch.load(file, map_location="cpu")
    if kept["step"] < num_steps:
        return None
    weights = kept["average"].items()
    return {name.removeprefix("module."): value for name, value in weights if name != "n_averaged"}


def _is_matrix(parameter: torch.Tensor) -> bool:
    return parameter.dim() > 1 and min(parameter.shape[0], parameter[0].numel()) > 1
