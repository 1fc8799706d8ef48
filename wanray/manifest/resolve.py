"""From raw batches to requests: validated, filled in, multiplied and keyed; and what is wrong with the rest.

A batch is all that is held at a time. Row numbers count from 0 over the whole manifest.
"""
# pyarrow makes its compute functions at import:
# pyright: reportAttributeAccessIssue=false

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wanray.config import DefaultsConfig, MediaConfig
from wanray.errors import ManifestError
from wanray.manifest.arrays import PROBLEM, flat
from wanray.manifest.canonical import hashed_head, requests_and_digests
from wanray.manifest.columns import MEDIA_COLUMNS, normalise_table, unknown_columns
from wanray.manifest.expand import expand, replace_column
from wanray.manifest.extension import VARIANT, Extension, extension_column, times_variants
from wanray.manifest.fill import fill
from wanray.manifest.fit import Fitter, check_pairs, fit
from wanray.manifest.media import Keep, Media, MediaOpener
from wanray.manifest.problems import Problem, describe, located
from wanray.manifest.rows import column
from wanray.manifest.settings import JobValues, check_defaults, check_sweep, combinations, job_values
from wanray.manifest.tags import merged_tags, plain_rows
from wanray.manifest.tasks import check_tasks, choose_tasks, needs
from wanray.manifest.validate import require_prompt, validate
from wanray.records import PLAN_SCHEMA, canonical_json
from wanray.registry import Defaults, Model

logger = logging.getLogger(__name__)

REQUEST_SCHEMA = pa.schema(
    [
        *PLAN_SCHEMA,
        ("row", pa.int64()),
        ("digest", pa.binary(32)),
        ("shift", pa.float64()),
        ("solver", pa.string()),
        ("guided", pa.bool_()),
        ("encoded", pa.binary(8)),
        ("text_bytes", pa.int32()),
    ]
)
"""One row per request: its plan row with one id, its manifest row, its key as bytes, and what it costs by; to
encode: a hash of prompt, extension and media, and how many bytes of UTF-8 the prompt has."""

INVALID_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("key", pa.string()), ("message", pa.string())]
)
"""One row per manifest row that breaks a rule; its key is a hash of its id and the row as it came."""

TELL_EVERY_S = 30.0
"""Media in a store take their time."""
MAX_REQUESTS = 8192
"""Most requests that `seeds` of the config and `sweep` may make of one piece of a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolver:
    """What is the same for all rows of one job."""

    model: Model
    model_json: dict[str, str]
    """{name, digest} of the weights: part of every key."""
    numerics: dict[str, Any]
    """The config's numerics: part of every key."""
    official: Defaults
    """What the model's authors use; its shift is never None."""
    defaults: DefaultsConfig
    sweep: dict[str, list[Any]]
    keep: Keep
    """Stores media that come as bytes inside the manifest."""
    media: MediaConfig | None = None
    """Which files rows may name, with absolute roots; None: any."""
    extension: Extension | None = None
    """How prompts are extended; None: they are rendered as written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """What became of one piece of the manifest."""

    requests: pa.Table
    """`REQUEST_SCHEMA`."""
    invalid: pa.Table
    """`INVALID_SCHEMA`."""
    problems: list[Problem]
    num_rows: int
    """Manifest rows in this piece, valid or not."""


def resolve(batches: Iterator[pa.Table], resolver: Resolver) -> Iterator[Resolved]:
    """The requests of a manifest, piece by piece in manifest order.

    Raises:
        ConfigError: at the call, if `defaults` or `sweep` break a rule.
        ManifestError: on the first batch, if no column says what to render.
    """
    check_defaults(resolver.defaults, resolver.model)
    check_sweep(resolver.sweep, resolver.model)
    return _resolve(batches, resolver)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What is computed once for all pieces."""

    resolver: Resolver
    values: JobValues
    choices: pa.Table
    opener: MediaOpener
    head: "hashlib._Hash"

    @property
    def piece_rows(self) -> int:
        """Manifest rows to take at a time, so that their requests are not many more than `MAX_REQUESTS`."""
        return max(1, MAX_REQUESTS // (len(self.choices) * len(self.values.values["seeds"] or [0])))


def _resolve(batches: Iterator[pa.Table], resolver: Resolver) -> Iterator[Resolved]:
    job = _Job(
        resolver=resolver,
        values=job_values(resolver.official, resolver.defaults),
        choices=times_variants(combinations(resolver.sweep), resolver.extension),
        opener=MediaOpener(resolver.keep, resolver.model.inputs, resolver.media),
        head=hashed_head(resolver.model_json, resolver.numerics),
    )
    first_row, warned, told_s = 0, False, time.monotonic()
    for batch in batches:
        if first_row == 0:
            _require_columns(batch, resolver)
        warned = warned or _warn_unknown(batch)
        for start in range(0, len(batch), job.piece_rows):
            piece = batch.slice(start, job.piece_rows)
            yield _resolve_piece(piece, first_row, job)
            first_row += len(piece)
            if time.monotonic() - told_s > TELL_EVERY_S:
                told_s = time.monotonic()
                logger.info("planning: %d rows are read and their media opened", first_row)


def _require_columns(batch: pa.Table, resolver: Resolver) -> None:
    told = {"prompt", *MEDIA_COLUMNS, PROBLEM} & set(batch.column_names)
    if not told and resolver.defaults.prompt is None and "prompt" not in resolver.sweep:
        names = ", ".join(batch.column_names)
        raise ManifestError(f"manifest has no column prompt, only {names}: rename one or set defaults.prompt")


def _warn_unknown(batch: pa.Table) -> bool:
    """Whether there was something to warn of."""
    unknown = unknown_columns(batch)
    if unknown:
        logger.warning("manifest columns %s are unknown: carried along as tags", ", ".join(unknown))
    return bool(unknown)


def _resolve_piece(raw: pa.Table, first_row: int, job: _Job) -> Resolved:
    judged = _judge(raw, job)
    rows = pa.array(np.arange(first_row, first_row + len(raw)))
    ids = _ids(judged.table, rows)
    bad = pa.array(sorted({problem.row for problem in judged.problems}), pa.int64())
    good = pc.invert(pc.is_in(pa.array(np.arange(len(raw))), bad))
    filled = fill(judged.table, judged.tasks, job.values)
    tags = merged_tags(raw, judged.table, job.values.values["tags"])
    added = {"row": pa.array(np.arange(len(raw))), "id": ids, "tags": tags}
    added[VARIANT] = pa.nulls(len(raw), pa.int64())
    for name, array in added.items():
        filled = filled.append_column(name, array)
    expanded = expand(filled.filter(good), job.choices)
    fitter = Fitter(job.resolver.model, job.resolver.numerics["mode"], job.values)
    fitted, unfit = fit(expanded, judged.media, judged.key_frames, fitter)
    problems = located(judged.problems + unfit, first_row, ids.to_pylist())
    invalid = pc.is_in(rows, pa.array([problem.row for problem in problems], pa.int64()))
    return Resolved(
        requests=_requests(fitted, first_row, job),
        invalid=_invalid(raw.filter(invalid), problems),
        problems=problems,
        num_rows=len(raw),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """The rows of a piece in canonical types, with what is wrong; rows count within the piece."""

    table: pa.Table
    tasks: pa.Array
    media: Media
    key_frames: dict[int, list[int]]
    problems: list[Problem]


def _judge(raw: pa.Table, job: _Job) -> _Judged:
    """The normalised rows and all their problems; of a medium that cannot be opened only that."""
    resolver = job.resolver
    table, problems = normalise_table(raw)
    tasks = choose_tasks(table, resolver.model, resolver.defaults.task)
    captioned = None if resolver.extension is None else needs(tasks, "image")
    if resolver.defaults.prompt is None and "prompt" not in resolver.sweep:
        unreadable = {problem.row for problem in problems if problem.column in ("prompt", "")}
        required = require_prompt(table, resolver.model, captioned)
        problems += [problem for problem in required if problem.row not in unreadable]
    media, unopened = job.opener.open(table)
    rules = validate(table, resolver.model, captioned)
    rules += check_tasks(table, tasks, resolver.model) + check_pairs(media)
    reported = {(problem.row, problem.column) for problem in problems + unopened}
    problems += unopened + [item for item in rules if (item.row, item.column) not in reported]
    frames = column(table, "key_frames").to_pylist()
    key_frames = {row: values for row, values in enumerate(frames) if values}
    return _Judged(table, tasks, media, key_frames, problems)


def _ids(table: pa.Table, rows: pa.Array) -> pa.Array:
    """The rows' ids; `row-0000017` where none is given."""
    default = pc.binary_join_element_wise("row-", pc.utf8_lpad(rows.cast(pa.string()), 7, "0"), "")
    return pc.coalesce(flat(table["id"]), default) if "id" in table.column_names else default


def _requests(table: pa.Table, first_row: int, job: _Job) -> pa.Table:
    if job.resolver.numerics["mode"] == "official":
        table = _official_negative(table, job.resolver.official)
    table = table.append_column("extension", extension_column(table, job.resolver.extension))
    requests, digests = requests_and_digests(table, job.head)
    columns = {name: table[name] for name in REQUEST_SCHEMA.names if name in table.column_names}
    columns["row"] = pc.add(flat(table["row"]), first_row)
    one_each = pa.array(np.arange(len(table) + 1), pa.int32())
    columns["ids"] = pa.ListArray.from_arrays(one_each, flat(table["id"]))
    columns["key"] = pa.array([digest.hex() for digest in digests], pa.string())
    columns["request"] = pa.array(requests, pa.string())
    columns["digest"] = pa.array(digests, pa.binary(32))
    scales = (pc.not_equal(table[name], 1.0) for name in ("guidance_high", "guidance_low"))
    columns["guided"] = pc.or_(*scales)
    decisive = (flat(table[name]) for name in ("prompt", "extension", "inputs"))
    columns["encoded"] = _hashes(pc.binary_join_element_wise(*decisive, ""))
    columns["text_bytes"] = pc.binary_length(table["prompt"])
    return pa.table({name: columns[name] for name in REQUEST_SCHEMA.names}, schema=REQUEST_SCHEMA)


def _hashes(texts: pa.Array) -> pa.Array:
    """Eight bytes for each text; the same for equal ones, which seeds and sweeps make many of."""
    coded = texts.dictionary_encode()
    hashes = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in coded.dictionary.to_pylist()]
    return pa.array(hashes, pa.binary(8)).take(coded.indices)


def _official_negative(table: pa.Table, official: Defaults) -> pa.Table:
    """The official code takes an empty negative prompt for none given; one blank is an empty one."""
    texts = flat(table["negative_prompt"])
    filled = pc.if_else(pc.equal(texts, ""), official.negative_prompt, texts)
    return replace_column(table, "negative_prompt", filled)


def _invalid(raw: pa.Table, problems: list[Problem]) -> pa.Table:
    """The failures of `raw`, the rows that have `problems`, both in row order."""
    groups = [list(group) for _, group in itertools.groupby(problems, key=lambda problem: problem.row)]
    rows = plain_rows(raw, raw.column_names)
    named = [{"id": group[0].id} | row for group, row in zip(groups, rows, strict=True)]
    keys = [hashlib.sha256(canonical_json(row).encode()).hexdigest() for row in named]
    columns = {
        "row": [group[0].row for group in groups],
        "id": [group[0].id for group in groups],
        "key": keys,
        "message": [describe(group) for group in groups],
    }
    return pa.table(columns, schema=INVALID_SCHEMA)
