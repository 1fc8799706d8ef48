"""Ray Data's UDF for a pool: hands a record to the GangPool actor and waits, without resources of its own."""

import json
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from wanray.engine.deaths import failed_try
from wanray.engine.pipeline import PoolSpec
from wanray.records import STOPPED, FailedTry, Record

FETCHES = 3
"""Times that a record is rendered because its result was lost with a node, or with the pool's actor."""


class GangProxy:
    """One instance per pool and visit, on the driver's node; its calls overlap."""

    def __init__(self, pool: PoolSpec, actor: Any, visit: int = 0) -> None:
        self.pool, self.actor, self.visit = pool, actor, visit

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """One record in, one out; those that have failed before, or are left alone, pass by."""
        if "payload" in batch.column_names and not _is_open(batch):
            return batch
        key, request = batch["key"][0].as_py(), json.loads(batch["request"][0].as_py())
        group = _group(request) if self.pool.shares else ""
        tries: list[FailedTry] = []
        for _ in range(FETCHES):
            result = await self.actor.run.remote([ray.put(batch)], key, _shape(request), group, self.visit)
            tries += result.tries
            if not result.table:
                break
            try:
                return await result.table[0]
            except RayError as lost:
                tries.append(failed_try(self.pool.name, lost))
        record = Record.from_table(batch)
        ended = record.tried(*tries[:-1]).failed(tries[-1]) if tries else record.skip(STOPPED)
        return ended.to_table()


def _is_open(batch: pa.Table) -> bool:
    return batch["failure"][0].as_py() is None and not batch["skipped"][0].as_py()


def _shape(request: dict[str, Any]) -> str:
    return f"{request['width']}x{request['height']}x{request['num_frames']}"


def _group(request: dict[str, Any]) -> str:
    """The same for requests whose prompts, media and extension are the same."""
    return json.dumps([request["prompt"], request["inputs"], request["extension"]], sort_keys=True)
