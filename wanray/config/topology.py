"""How the ranks of a gang divide a request: one value that knows what can be divided so."""

from collections.abc import Collection
from dataclasses import dataclass, fields

from wanray.config.checks import check_at_least
from wanray.config.faults import ATTENTIONS
from wanray.errors import ConfigError

RING_ATTENTIONS = ("flash_3", "cudnn", "flash_2", "sdpa")
"""Kernels that return a log-sum-exp, by which a ring merges what its ranks have seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopologyConfig:
    """How the ranks of one gang share a request; cfg x ulysses x ring is the gang's size."""

    cfg: int = 1
    """2: the guided and the unguided forward of a step run side by side."""
    ulysses: int = 1
    """Ranks among which attention heads are divided; it must divide the model's heads."""
    ring: int = 1
    """Ranks among which tokens are divided, with keys and values passed around."""
    fsdp: int = 1
    """Ranks among which weights are divided: 1, or all of the gang."""

    def check(self, key: str) -> None:
        """Raise ConfigError if ranks cannot be arranged so; `key` is where this stands."""
        for item in fields(self):
            check_at_least(f"{key}.{item.name}", getattr(self, item.name), 1)
        if self.cfg > 2:
            raise ConfigError(f"{key}.cfg must be 1 or 2, got {self.cfg}")
        if self.fsdp not in (1, self.world_size):
            raise ConfigError(f"{key}.fsdp must be 1 or the gang's {self.world_size} ranks, got {self.fsdp}")

    def check_model(self, key: str, num_heads: int, attention: str) -> None:
        """Raise ConfigError if a model with so many heads cannot be divided so.

        attention: `auto`, a name of `ATTENTIONS`, or `sage`.
        """
        if num_heads % self.ulysses:
            usable = ", ".join(str(size) for size in range(1, num_heads + 1) if num_heads % size == 0)
            raise ConfigError(
                f"{key}.ulysses must divide the model's {num_heads} heads, got {self.ulysses}: "
                f"use one of {usable}"
            )
        if self.ring > 1 and attention not in ("auto", *RING_ATTENTIONS):
            where = "denoise.attention" if attention in ATTENTIONS else "numerics.attention"
            raise ConfigError(
                f"{key}.ring {self.ring} needs attention that returns a log-sum-exp, which {attention} "
                f"does not: use ring=1, or another {where}"
            )

    def check_tokens(self, key: str, num_tokens: Collection[int]) -> None:
        """Raise ConfigError for numbers of tokens that leave nothing but pads to the last ranks."""
        for number in sorted(num_tokens):
            if self.is_too_fine(number):
                raise ConfigError(
                    f"{key} cannot divide a request of {number} tokens among ulysses {self.ulysses} x ring "
                    f"{self.ring} ranks: use fewer, or larger videos"
                )

    def is_too_fine(self, num_tokens: int) -> bool:
        """Whether so few tokens would leave nothing but pads to the last ranks."""
        num_pads = -num_tokens % self.num_parts
        return num_pads >= self.ulysses * -(-num_tokens // self.num_parts)

    @property
    def words(self) -> str:
        """Such as `cfg 2 x ulysses 4`; empty for one rank."""
        ways = [f"{item.name} {getattr(self, item.name)}" for item in fields(self)]
        return " x ".join(way for way in ways if not way.endswith(" 1"))

    @staticmethod
    def from_words(words: str) -> "TopologyConfig":
        """The topology whose `words` these are.

        Raises:
            ValueError, TypeError: they are not.
        """
        pairs = [way.split() for way in words.split(" x ")] if words else []
        return TopologyConfig(**{name: int(size) for name, size in pairs})

    @property
    def num_parts(self) -> int:
        """Parts into which the tokens of a request are divided; what does not divide is padded."""
        return self.ulysses * self.ring

    @property
    def world_size(self) -> int:
        """Ranks in one gang."""
        return self.cfg * self.num_parts
