"""Canonical JSON and keys of many requests at once.

Gives the same bytes as `Request.to_json` and `content_key`, from columns instead of objects.
"""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from wanray.manifest.arrays import flat
from wanray.records import canonical_json, key_head

BEFORE_SEED = (
    ('{"context_scale":', "context_scale"),
    (',"extension":', "extension"),
    (',"fps":', "fps"),
    (',"guidance":{"high":', "guidance_high"),
    (',"low":', "guidance_low"),
    ('},"height":', "height"),
    (',"inputs":', "inputs"),
    (',"key_frames":', "key_frames"),
    (',"negative_prompt":', "negative_prompt"),
    (',"num_frames":', "num_frames"),
    (',"prompt":', "prompt"),
)
"""Text and the column whose value follows it, up to the seed."""

AFTER_SEED = (
    ('"shift":', "shift"),
    (',"solver":', "solver"),
    (',"steps":', "steps"),
    (',"task":', "task"),
    (',"video_sampling":', "video_sampling"),
    (',"width":', "width"),
)
"""The same after the seed."""

WRITTEN = ("extension", "inputs", "key_frames")
"""Columns that are JSON already."""


def hashed_head(model: dict[str, str], numerics: dict[str, str]) -> "hashlib._Hash":
    """The hash of what the keys of one job have in common."""
    return hashlib.sha256(key_head(model, numerics).encode())


def requests_and_digests(table: pa.Table, head: "hashlib._Hash") -> tuple[list[str], list[bytes]]:
    """Per row of resolved columns: the canonical JSON of its request, and the digest that is its key.

    A null seed is derived from all else that decides the key, so it is stable; it has 32 bits.
    """
    requests: list[str] = []
    digests: list[bytes] = []
    parts = (_joined(table, BEFORE_SEED), flat(table["seed"]), _joined(table, AFTER_SEED))
    for before, seed, after in zip(*(part.to_pylist() for part in parts), strict=True):
        derived = _derived_seed(head, f"{before},{after}}}") if seed is None else seed
        request = f'{before},"seed":{derived},{after}}}'
        requests.append(request)
        digests.append(_digest(head, request))
    return requests, digests


def _derived_seed(head: "hashlib._Hash", request: str) -> int:
    return int.from_bytes(_digest(head, request)[:4], "big")


def _digest(head: "hashlib._Hash", request: str) -> bytes:
    whole = head.copy()
    whole.update(request.encode())
    whole.update(b"}")
    return whole.digest()


def _joined(table: pa.Table, template: tuple[tuple[str, str], ...]) -> pa.Array:
    """The template filled in for each row."""
    pieces: list[pa.Array | str] = [pa.repeat("", len(table))]
    for text, name in template:
        values = _json(flat(table[name]), written=name in WRITTEN)
        if isinstance(values, str) and isinstance(pieces[-1], str):
            pieces[-1] += text + values
        elif isinstance(values, str):
            pieces.append(text + values)
        else:
            pieces += [text, values]
    return pc.binary_join_element_wise(*pieces, "")


def _json(array: pa.Array, *, written: bool) -> pa.Array | str:
    """JSON of each value; one text where all rows have the same."""
    encoded = array.dictionary_encode(null_encoding="encode")
    values = encoded.dictionary.to_pylist()
    texts = values if written else [canonical_json(value) for value in values]
    return texts[0] if len(texts) == 1 else pa.array(texts, pa.string()).take(encoded.indices)
