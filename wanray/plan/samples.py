"""A few requests of each kind, with few steps: what is rendered to measure how long requests take."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from wanray.manifest import INVALID_SCHEMA, Resolved
from wanray.records import Request, content_key

KIND = ("width", "height", "num_frames", "guided")
"""Columns by which a step's seconds differ."""
OF_EACH = 3
"""The first one warms up, so that the median is that of what follows."""


class Sampler:
    """Of one manifest; model and numerics stand in the keys."""

    def __init__(self, num_steps: int, model: dict[str, str], numerics: dict[str, Any]) -> None:
        self._num_steps, self._model, self._numerics = num_steps, model, numerics
        self._seen: set[tuple[Any, ...]] = set()

    def __call__(self, resolved: Iterator[Resolved]) -> Iterator[Resolved]:
        """The first request of each kind, `OF_EACH` times with seeds and keys of their own."""
        for piece in resolved:
            rows = [row for row in _firsts(piece.requests, KIND) if self._is_new(row)]
            samples = [self._sample(row, number) for row in rows for number in range(OF_EACH)]
            table = pa.Table.from_pylist(samples, schema=piece.requests.schema)
            invalid = INVALID_SCHEMA.empty_table()
            yield Resolved(requests=table, invalid=invalid, problems=[], num_rows=len(rows))

    def _is_new(self, row: dict[str, Any]) -> bool:
        kind = tuple(row[name] for name in KIND)
        is_new = kind not in self._seen
        self._seen.add(kind)
        return is_new

    def _sample(self, row: dict[str, Any], number: int) -> dict[str, Any]:
        request = Request.from_json(row["request"])
        request = replace(request, steps=min(request.steps, self._num_steps), seed=number)
        key = content_key(request.to_json(), self._model, self._numerics)
        name = f"{request.width}x{request.height}x{request.num_frames}-{number}"
        changed = {"request": request.to_json(), "steps": request.steps, "key": key, "ids": [name]}
        return row | changed | {"digest": bytes.fromhex(key)}


def _firsts(table: pa.Table, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The first row of each combination of these columns."""
    seen: dict[tuple[Any, ...], int] = {}
    for index, values in enumerate(zip(*[table[name].to_pylist() for name in columns], strict=True)):
        seen.setdefault(values, index)
    return table.take(pa.array(list(seen.values()), pa.int64())).to_pylist()
