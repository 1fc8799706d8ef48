"""Who computes a request: this process alone, or the ranks of a gang, which share each forward.

The denoise loop is the same for both. Shape suffixes: B batch (1), C channels, T, H, W latent frames, height,
width, L text tokens, D text width.
"""

import logging
from typing import Any, Protocol

import torch

from wanray.checkpoint import Component
from wanray.config import TopologyConfig
from wanray.errors import ConfigError
from wanray.models import fsdp, process_group, xdit
from wanray.models.attention import choose_attention
from wanray.models.denoise import Forward, Pair, TextCondition, load_transformer, one_after_the_other
from wanray.models.load import blocks_of
from wanray.models.offload import keep_on_host
from wanray.stage import Worker

logger = logging.getLogger(__name__)


class Ranks(Protocol):
    """What the denoise stage asks of them."""

    attention: str
    """The kernel: a name of `wanray.config.ATTENTIONS`, or `sage`."""
    pair: Pair
    """How the forwards of a step are done."""

    def load(
        self, component: Component, dtype: torch.dtype, *, official: bool, offloads: bool = False
    ) -> Any:
        """One expert, as far as it is here.

        offloads: its blocks stay in the host's memory, and visit the device in turn.
        """
        ...

    def from_first(self, number: int) -> int:
        """The number that rank 0 holds."""
        ...

    def check(self, what: str, digest: bytes) -> None:
        """Fail unless all ranks hold the same."""

    def leave(self) -> None:
        """Free what is between the ranks."""


def make_ranks(
    worker: Worker, topology: TopologyConfig, attention: str, mode: str, dtype: torch.dtype, store: Any
) -> Ranks:
    """Join the gang of `worker`, if there is one. On a GPU one rank too computes by xDiT's kernels, unless
    numerics are those of diffusers, which has its own.

    store: on rank 0 of several, the one that it opened.

    Raises:
        ConfigError: `attention` does not work here.
    """
    has_choice = worker.device == "cuda" and (mode == "official" or attention != "auto")
    if worker.world_size > 1 or has_choice:
        return Gang(worker, topology, attention, dtype, store)
    return Alone(worker, attention)


class Alone:
    """One process with diffusers' transformer as it is."""

    attention = "sdpa"

    def __init__(self, worker: Worker, attention: str) -> None:
        if attention not in ("auto", self.attention):
            key = "numerics.attention" if attention == "sage" else "denoise.attention"
            raise ConfigError(f"{key} {attention} needs GPUs for the denoise pools: leave it out")
        self.device = worker.device
        self.pair = one_after_the_other

    def load(
        self, component: Component, dtype: torch.dtype, *, official: bool, offloads: bool = False
    ) -> Any:
        """The whole of it."""
        if not offloads:
            return load_transformer(component, dtype, self.device, official=official)
        return keep_on_host(load_transformer(component, dtype, "cpu", official=official), self.device)

    def from_first(self, number: int) -> int:
        """The number itself."""
        return number

    def check(self, what: str, digest: bytes) -> None:
        """Nobody to disagree with."""

    def leave(self) -> None:
        """Nothing to leave."""


class Gang:
    """Ranks that xDiT holds together: guidance, attention heads, tokens and weights divided among them."""

    def __init__(
        self, worker: Worker, topology: TopologyConfig, attention: str, dtype: torch.dtype, store: Any
    ) -> None:
        self.device, self.topology = worker.device, topology
        xdit.import_xfuser(worker.device)
        store = store or process_group.find_store(worker.rendezvous, worker.world_size)
        self._agreement = process_group.Agreement(store, worker.rank, worker.world_size, worker.device)
        self.from_first, self.check = self._agreement.from_first, self._agreement.check
        self.attention, backend = choose_attention(attention, topology.ring > 1, worker.device, dtype)
        if worker.rank == 0:
            logger.info("gang of %d ranks: %s, attention %s", worker.world_size, topology, self.attention)
        xdit.start(topology, worker.device, backend)
        self.pair = side_by_side if topology.cfg > 1 else one_after_the_other

    def load(
        self, component: Component, dtype: torch.dtype, *, official: bool, offloads: bool = False
    ) -> Any:
        """xDiT's transformer with the weights, or this rank's part of them."""
        device = "cpu" if offloads else self.device
        transformer = load_transformer(component, dtype, device, official=official, prepare=self._prepared)
        return keep_on_host(transformer, self.device) if offloads else transformer

    def _prepared(self, network: Any) -> Any:
        transformer = xdit.shared(network)
        if self.topology.fsdp > 1:
            fsdp.divide(transformer, blocks_of(transformer), self.device)
        return transformer

    def leave(self) -> None:
        """Leave the gang; a process that left cannot join another."""
        process_group.leave()


def side_by_side(forward: Forward, text: TextCondition) -> tuple[torch.Tensor, torch.Tensor]:
    """One half of the ranks does the forward with the prompt while the other does that without."""
    own = forward(text.prompt_BLD if xdit.is_conditional() else text.negative_BLD)
    return xdit.from_both(own)
