"""How the prompts of a job are extended, as far as that decides pixels: a part of every key."""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.manifest.settings import LABEL
from wanray.records import NOT_EXTENDED, canonical_json
from wanray.registry import TASKS, prompt_kind

VARIANT = "variant"


@dataclass(frozen=True, kw_only=True, slots=True)
class Extension:
    """What one job says of it."""

    settings: dict[str, Any]
    """What is the same for all prompts: method, language, seed."""
    text_model: str | None
    """Extends prompts without images."""
    image_model: str | None
    """Extends prompts with a first frame."""
    templates: dict[str, str]
    """Kind of prompt -> digest of its system prompt."""
    variants: int = 1

    def of(self, task: str, has_prompt: bool, variant: int) -> dict[str, Any]:
        """What stands in the request."""
        return self.settings | {
            "model": self.image_model if "image" in TASKS[task].required else self.text_model,
            "template": self.templates[prompt_kind(task, has_prompt)],
            VARIANT: variant,
        }


def times_variants(combinations: pa.Table, extension: Extension | None) -> pa.Table:
    """The combinations of a sweep, each once per variant of the extended prompt."""
    number = 1 if extension is None else extension.variants
    rows = np.repeat(np.arange(len(combinations)), number)
    table = combinations.take(pa.array(rows))
    variants = np.tile(np.arange(number), len(combinations))
    if number > 1:
        labels = [
            ",".join(filter(None, (label, f"{VARIANT}={variant}")))
            for label, variant in zip(table[LABEL].to_pylist(), variants, strict=True)
        ]
        table = table.drop([LABEL]).append_column(LABEL, pa.array(labels, pa.string()))
    return table.append_column(VARIANT, pa.array(variants, pa.int64()))


def extension_column(table: pa.Table, extension: Extension | None) -> pa.Array:
    """The canonical JSON of how each resolved row's prompt is extended."""
    if extension is None:
        return pa.repeat(canonical_json(NOT_EXTENDED), len(table))
    has_prompt = pc.not_equal(pc.utf8_trim_whitespace(flat(table["prompt"])), "")
    variant = flat(table[VARIANT]).cast(pa.string())
    kinds = pc.binary_join_element_wise(flat(table["task"]), has_prompt.cast(pa.string()), variant, " ")
    encoded = kinds.dictionary_encode()
    texts = [_text(extension, *kind.split()) for kind in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _text(extension: Extension, task: str, has_prompt: str, variant: str) -> str:
    return canonical_json(extension.of(task, has_prompt == "true", int(variant)))
