"""The transformers of a denoise pool: all of them on the device, or one at a time."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wanray.checkpoint import Component
from wanray.models.load import refill

Load = Callable[[Component], Any]
"""Component -> its network, ready for inference."""
Tell = Callable[[], object]
"""Called again and again while weights are on their way."""


class Experts(Protocol):
    """What the denoise stage asks of them."""

    def get(self, expert: str, tell: Tell) -> Any:
        """The transformer of `expert`, ready to compute; another one may not be used after that."""
        ...


class Resident:
    """All of them, each with memory of its own."""

    def __init__(self, components: Mapping[str, Component], load: Load) -> None:
        self._networks = {expert: load(component) for expert, component in components.items()}

    def get(self, expert: str, tell: Tell) -> Any:
        """It is there already."""
        return self._networks[expert]


class Swapped:
    """One network that is filled with the weights of whichever expert is asked for.

    Experts of a model have the same shapes, so a swap allocates nothing. What is not held stays in its files,
    which the host's page cache keeps, once for all processes of a node.
    """

    def __init__(self, components: Mapping[str, Component], load: Load) -> None:
        self._components = components
        first, *_, self._held = components
        self._network = load(components[self._held])
        self.get(first, lambda: None)  # all files have been read then, and their tensors fit

    def get(self, expert: str, tell: Tell) -> Any:
        """Read its weights, unless they are what is held."""
        if self._held != expert:
            self._held = ""  # where reading fails half way, it is neither
            refill(self._network, self._components[expert], tell)
            self._held = expert
        return self._network
