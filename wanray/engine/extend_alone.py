"""Prompt extension alone, without a GPU and without Ray: a manifest in, one with longer prompts out.

What it asks of a model is kept in the cache that `render` reads, so nothing is asked twice.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from wanray.checkpoint import open_checkpoint
from wanray.config import RenderConfig
from wanray.engine.extending import make_extending
from wanray.engine.ground import Keeper, make_resolver
from wanray.engine.pipeline import make_extend_pool
from wanray.errors import ConfigError, StageError
from wanray.hub import resolve as resolve_path
from wanray.manifest import Resolved, Resolver, read_rows, resolve
from wanray.manifest.media import absolute_roots
from wanray.records import Record, canonical_json
from wanray.stage import Worker, load
from wanray.storage import Store

NEW_COLUMNS = ("prompt", "written_prompt", "extension")
NO_MODEL = {"name": "", "digest": ""}
"""Keys do not matter here, so no weights are hashed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtendedManifest:
    """The rows whose prompts were extended or kept, and what became of the others."""

    table: pa.Table
    """The manifest's own columns, with the prompt to render, the prompt as written, and who extended it."""
    num_kept: int
    """Rows whose prompt stays as written, because it could not be extended."""
    problems: list[str]
    """Rows that are left out: those that break a rule, and those that failed with `on_error: fail`."""


def extend_manifest(config: RenderConfig) -> ExtendedManifest:
    """The manifest of `config` with extended prompts; seeds and sweeps are left to the render.

    Raises:
        ConfigError, ManifestError: wrong use.
    """
    if "prompt" in config.sweep:
        raise ConfigError("sweep.prompt cannot be extended alone: list the prompts in the manifest")
    config = replace(config, media=absolute_roots(config.media), sweep={})
    config = replace(config, defaults=replace(config.defaults, seeds=None))
    checkpoint = open_checkpoint(resolve_path(config.model.path), config.model.name)
    extending = make_extending(config, checkpoint.model)
    if extending is None:
        raise ConfigError("extension.method is none: set it to chat or qwen, there is nothing to extend with")
    keep = Keeper(Store.open(config.output.url), writes=True)
    resolver = replace(make_resolver(config, checkpoint, NO_MODEL, keep), extension=extending.extension)
    pool = make_extend_pool(config, extending.stage)
    (stage,) = [spec.build() for spec in pool.stages]
    has_gpu = pool.wants_gpu and load("torch.cuda:is_available")()
    try:
        stage.setup(Worker(device="cuda" if has_gpu else "cpu"))
        with ThreadPoolExecutor(pool.concurrency if pool.wants_gpu else pool.num_seats) as threads:
            return _joined([piece.extended(stage, threads) for piece in _pieces(config, resolver)])
    finally:
        stage.close()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of the manifest as they came, and what they resolve to."""

    rows: pa.Table
    first_row: int
    resolved: Resolved
    has_variants: bool

    def extended(self, stage: Any, threads: ThreadPoolExecutor) -> ExtendedManifest:
        """Every prompt once per variant, however many seeds a row has."""
        records: dict[tuple[int, int], Record] = {}
        for plan in self.resolved.requests.to_pylist():
            record = Record.from_plan(plan)
            records.setdefault((plan["row"], record.request.extension["variant"]), record)
        results = list(threads.map(lambda record: _run(stage, record), records.values()))
        done = [
            (row, variant, result)
            for (row, variant), result in zip(records, results, strict=True)
            if isinstance(result, Record)
        ]
        return ExtendedManifest(
            table=self._table(done),
            num_kept=sum("kept" in record.extended for _, _, record in done),
            problems=[
                *map(str, self.resolved.problems),
                *(text for text in results if isinstance(text, str)),
            ],
        )

    def _table(self, done: list[tuple[int, int, Record]]) -> pa.Table:
        names = [name for name in self.rows.column_names if name not in ("id", *NEW_COLUMNS)]
        table = self.rows.select(names).take(
            pa.array([row - self.first_row for row, _, _ in done], pa.int64())
        )
        columns = {
            "id": [self._id(row, variant, record) for row, variant, record in done],
            "prompt": [record.prompt for _, _, record in done],
            "written_prompt": [record.request.prompt for _, _, record in done],
            "extension": [
                canonical_json(record.request.extension | {"kept": record.extended.get("kept")})
                for _, _, record in done
            ],
        }
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values, pa.string()))
        return table

    def _id(self, row: int, variant: int, record: Record) -> str:
        base = record.ids[0].partition("#")[0]
        if "id" in self.rows.column_names:
            base = self.rows["id"][row - self.first_row].as_py() or base
        return f"{base}#variant={variant}" if self.has_variants else str(base)


def _run(stage: Any, record: Record) -> Record | str:
    """The record after the stage, or why it failed."""
    try:
        return stage.run(record, lambda step, total: False)
    except StageError as error:
        return f'id "{record.ids[0]}": {error}'


def _pieces(config: RenderConfig, resolver: Resolver) -> Iterator[_Piece]:
    """The manifest, read twice side by side: as it came, and resolved."""
    batches, rest, first_row = read_rows(config), None, 0
    for resolved in resolve(read_rows(config), resolver):
        if rest is None or len(rest) == 0:
            rest = next(batches)
        yield _Piece(rest.slice(0, resolved.num_rows), first_row, resolved, config.extension.variants > 1)
        rest, first_row = rest.slice(resolved.num_rows), first_row + resolved.num_rows


def _joined(parts: list[ExtendedManifest]) -> ExtendedManifest:
    return ExtendedManifest(
        table=pa.concat_tables([part.table for part in parts], promote_options="permissive"),
        num_kept=sum(part.num_kept for part in parts),
        problems=[problem for part in parts for problem in part.problems],
    )
