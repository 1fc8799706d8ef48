"""Plans the decoding of latents that an earlier render saved: other codec or tiling, no denoising."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.checkpoint import open_checkpoint
from wanray.config import RenderConfig
from wanray.digest import weights_digest
from wanray.engine.ground import check_output, new_run, store_config
from wanray.engine.pipeline import make_decode_pools, numerics_json
from wanray.engine.prepare import Job
from wanray.errors import ConfigError
from wanray.hub import resolve
from wanray.manifest import INVALID_SCHEMA
from wanray.manifest.media import absolute_roots
from wanray.plan import Counts, Plan, decode_pool, store_plan
from wanray.records import PLAN_SCHEMA, Request, canonical_json, content_key
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.sinks.video import check_video
from wanray.storage import Store

LATENTS = "latents"
"""The entry of a record's sources that names the clip whose latents it decodes."""
PART_ROWS = 4096
NUM_THREADS = 16
MAX_PROBLEMS = 20
T = TypeVar("T")


def prepare_decode(latents_url: str, config: RenderConfig) -> Job:
    """The job that decodes the clips at `latents_url`, the output of an earlier render, to `output.url`.

    Model and numerics must be those of the render; `numerics.vae_tiling` and `output` may differ.

    Raises:
        ConfigError: nothing to decode there, or what is there was rendered otherwise.
        StorageError: a store cannot be reached.
    """
    check_video(config.output.video)
    config = replace(config, media=absolute_roots(config.media))
    checkpoint = open_checkpoint(resolve(config.model.path), config.model.name)
    model = {"name": checkpoint.model.name, "digest": weights_digest(checkpoint)}
    source, target = Ledger(Store.open(latents_url)), Ledger(Store.open(config.output.url))
    notes, run = check_output(target.store), config.run or new_run()
    keys = sorted(source.committed_keys())
    if not keys:
        raise ConfigError(f"LATENTS {latents_url} has no clips: name the output.url of a render")
    store_config(target.store, run, config)
    selection = _Selection(source, target.committed_keys(), config, model)
    parts = [
        _write_part(target.store, run, number, rows)
        for number, rows in enumerate(batched(selection.rows(keys), PART_ROWS))
    ]
    plan = Plan(
        run=run,
        model=model,
        numerics=numerics_json(config.numerics),
        placement="decode",
        counts=selection.counts(len(keys)),
        groups=(),
        pools=(decode_pool(config),),
        parts=tuple(parts),
        problems=tuple(row["message"] for row in selection.invalid[:MAX_PROBLEMS]),
        num_problems=len(selection.invalid),
        notes=tuple(notes),
        assumptions={},
    )
    store_plan(target.store, plan)
    pools = make_decode_pools(config, checkpoint, model, run, source.store.url)
    invalid = pa.Table.from_pylist(selection.invalid, schema=INVALID_SCHEMA)
    return Job(config=config, plan=plan, pools=pools, invalid=invalid, ledger=target)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    return iter(lambda: list(islice(rest, size)), [])


class _Selection:
    """Goes through the clips of a render and keeps what is left to decode."""

    def __init__(
        self, source: Ledger, committed: set[bytes], config: RenderConfig, model: dict[str, str]
    ) -> None:
        self.source, self.committed = source, committed
        self.numerics, self.model = numerics_json(config.numerics), model
        self.invalid: list[dict[str, Any]] = []
        self.num_committed = self.num_left = 0

    def counts(self, num_clips: int) -> Counts:
        """Of all clips that were gone through."""
        return Counts(
            rows=num_clips,
            invalid=len(self.invalid),
            requests=num_clips - len(self.invalid),
            committed=self.num_committed,
            left=self.num_left,
        )

    def rows(self, keys: list[bytes]) -> Iterator[dict[str, Any]]:
        """Plan rows of the clips that are not committed yet; clips without latents become invalid rows."""
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            for chunk in batched(keys, PART_ROWS):
                for meta, has_latents in threads.map(self._read, chunk):
                    row = self._row(meta)
                    if not has_latents:
                        self.invalid.append(_without_latents(len(self.invalid), meta, row))
                    elif bytes.fromhex(row["key"]) in self.committed:
                        self.num_committed += 1
                    else:
                        self.num_left += 1
                        yield row

    def _read(self, key: bytes) -> tuple[dict[str, Any], bool]:
        meta = self.source.read_meta(key.hex())
        assert meta is not None, f"{key.hex()} was committed a moment ago"
        return meta, self.source.store.exists(f"{clip_folder(key.hex())}/latents.safetensors")

    def _row(self, meta: dict[str, Any]) -> dict[str, Any]:
        self._check_same(meta)
        request = Request.from_json(canonical_json(meta["request"]))
        text = request.to_json()
        sources = {item["sha256"]: item["uri"] for items in meta["inputs"].values() for item in items}
        return {
            "key": content_key(text, self.model, self.numerics),
            "ids": meta["ids"],
            "priority": 0,
            "width": request.width,
            "height": request.height,
            "num_frames": request.num_frames,
            "steps": request.steps,
            "request": text,
            "tags": canonical_json(meta["tags"]),
            "sources": canonical_json(sources | {LATENTS: meta["key"]}),
        }

    def _check_same(self, meta: dict[str, Any]) -> None:
        """Latents mean nothing to other weights, and their clip is described by what made them."""
        if meta["model"] != self.model:
            raise ConfigError(
                f"model.path has {_words(self.model)}, but the latents of {meta['key']} were rendered with "
                f"{_words(meta['model'])}: name the checkpoint of that render"
            )
        for name, value in meta["numerics"].items():
            if name != "vae_tiling" and self.numerics.get(name) != value:
                raise ConfigError(
                    f"numerics.{name} is {self.numerics.get(name)}, but the latents of {meta['key']} were "
                    f"rendered with {value}: set numerics.{name}={value}"
                )


def _words(model: dict[str, str]) -> str:
    return f"{model['name']} ({model['digest'][:12]})"


def _without_latents(row: int, meta: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    name = meta["ids"][0]
    message = f'clip {meta["key"]} (id "{name}") has no latents: render it with output.save_latents=true'
    return {"row": row, "id": name, "key": plan["key"], "message": message}


def _write_part(store: Store, run: str, number: int, rows: list[dict[str, Any]]) -> str:
    path, sink = f"runs/{run}/plan/part-{number:06d}.parquet", BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), sink, compression="zstd")
    store.write(path, sink.getvalue())
    return path
