"""Words of prompts that a model with a small vocabulary does not know: told before anything is rendered."""

from collections import Counter
from collections.abc import Iterator

from wanray.checkpoint.vocabulary import Vocabulary
from wanray.manifest import Resolved
from wanray.records import Request

MOST_SHOWN = 8


class WordCheck:
    """Looks at the prompts of requests as they pass."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.counts: Counter[str] = Counter()

    def __call__(self, resolved: Iterator[Resolved]) -> Iterator[Resolved]:
        """The same pieces."""
        for piece in resolved:
            for text in piece.requests["request"].to_pylist():
                self.counts.update(self.vocabulary.unknown(Request.from_json(text).prompt))
            yield piece

    def notes(self) -> list[str]:
        """One line, if there is something to tell."""
        if not self.counts:
            return []
        told = [word for word, _ in self.counts.most_common(MOST_SHOWN)]
        others = len(self.counts) - len(told)
        words = ", ".join(told) + (f" and {others} others" if others else "")
        known = ", ".join(self.vocabulary.words)
        return [f"prompts have words that the model does not know ({words}); it knows {known}"]
