"""Tokenizers that know a list of words and no more: what a text says that they do not know.

Wan's own knows every text; those of small models made to try things need not.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

LARGEST_BYTES = 2**20
"""A longer file is no list of words, and is not read for it."""


class Vocabulary:
    """The words of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, unknown: str, words: Sequence[str]) -> None:
        self._tokenizer, self._unknown, self.words = tokenizer, unknown, tuple(words)

    @classmethod
    def read(cls, folder: str) -> "Vocabulary | None":
        """That of the tokenizer in `folder`; None if texts are cut into pieces of words, as Wan's are."""
        file = Path(folder) / "tokenizer.json"
        if not file.is_file() or file.stat().st_size > LARGEST_BYTES:
            return None
        content = json.loads(file.read_text())
        if content["model"]["type"] != "WordLevel":
            return None
        special = {token["content"] for token in content["added_tokens"]}
        words = sorted(set(content["model"]["vocab"]) - special)
        return cls(Tokenizer.from_file(str(file)), content["model"]["unk_token"], words)

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that the tokenizer does not know, each once, in order."""
        encoded = self._tokenizer.encode(text)
        spans = zip(encoded.tokens, encoded.offsets, strict=True)
        return list(dict.fromkeys(text[start:end] for token, (start, end) in spans if token == self._unknown))
