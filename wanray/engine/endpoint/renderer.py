"""The one process that owns the pools: takes requests, sees them through, and tells how far they are.

It is a Ray Serve replica. What it has promised lies in the output's backlog, so that the replica that follows
a dead one goes on; its pools, which die with it, are started again.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any
from weakref import WeakValueDictionary

from wanray.engine.endpoint import views
from wanray.engine.endpoint.archive import Archive
from wanray.engine.endpoint.desk import Desk, FullError, Status
from wanray.engine.endpoint.line import Line, open_line
from wanray.engine.endpoint.orphans import Orphans
from wanray.engine.endpoint.reception import Reception, RefusedError
from wanray.engine.endpoint.views import Answer
from wanray.engine.ground import Ground, check_output, store_config
from wanray.engine.metrics import exported
from wanray.engine.monitor import Facts, Monitor
from wanray.engine.summary import Summary, conclude
from wanray.errors import StorageError
from wanray.records import CANCELLED, CLAIMED, STOPPED, Record
from wanray.sinks.backlog import Accepted
from wanray.sinks.claims import NOBODY, Claims, heartbeat
from wanray.sinks.events import EventLog

logger = logging.getLogger(__name__)

POLL_S = 0.5
PAUSE_S = 10.0
"""Before what another run holds, or the store refused, is tried again."""
RETRY_AFTER_S = 30
"""What those are told who come while the endpoint is full; clips take minutes."""
ORPHANS_EVERY_S = 30.0
"""What an endpoint promised that is gone is looked for that often."""
AT_ONCE = 4
"""Requests that are read and checked at the same time."""


class Renderer:
    """A Ray Serve deployment; ready when all pools are."""

    async def __init__(self, ground: Ground) -> None:
        self._ground, self._serve = ground, ground.config.serve
        self._archive = Archive(ground.ledger.store)
        self._reception = Reception(ground.resolver, self._serve.allow_uris)
        self._checks = asyncio.Semaphore(AT_ONCE)
        self._stop, self._stack = threading.Event(), ExitStack()
        self._adopter: asyncio.Task[None] | None = None
        self._orphans = Orphans(ground)
        self._claims = Claims(self._archive.store, ground.run, ground.config.faults.claim_expires_s)
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._monitor, self._line = await asyncio.to_thread(self._open)
        self._desk = Desk(self._render, self._end, self._line.seats, self._serve.max_open)
        await self._until_ready()
        await self._adopt()
        self._adopter = asyncio.ensure_future(self._keep_adopting())

    def _open(self) -> tuple[Monitor, Line]:
        ground, store = self._ground, self._archive.store
        check_output(store)
        store_config(store, ground.run, ground.config)
        events, pools = EventLog(store, ground.run), [pool.name for pool in ground.pools]
        facts = Facts(model=ground.model["name"])
        monitor = Monitor(ground.ledger, events, ground.run, pools, 0, facts=facts, stop=self._stop)
        self._stack.callback(monitor.close)
        self._stack.callback(self._conclude, monitor)
        self._stack.enter_context(heartbeat(store, ground.run, ground.config.faults.claim_expires_s))
        events.emit("run_started", run=ground.run, counts={}, pools=pools)
        line = self._stack.enter_context(open_line(ground.pools, monitor, ground.config, self._stop))
        self._stack.enter_context(exported(monitor.snapshot))
        return monitor, line

    async def _until_ready(self) -> None:
        while not self._line.is_ready:
            if self._line.error is not None:
                await asyncio.to_thread(self._stack.close)
                raise self._line.error
            await asyncio.sleep(POLL_S)

    async def _keep_adopting(self) -> None:
        while True:
            await asyncio.sleep(ORPHANS_EVERY_S)
            try:
                await self._adopt()
            except StorageError as error:
                logger.warning("the queue cannot be read: %s", error)

    async def _adopt(self) -> None:
        """Go on with what a replica before this one has promised, or an endpoint that is gone."""
        found = await asyncio.to_thread(self._orphans.adopted, self._is_known)
        for record, priority, _ in sorted(found, key=lambda accepted: -accepted.priority):
            if not self._is_known(record.key):
                logger.info("taken over key=%s", record.key)
                self._desk.admit(record, beyond=True)
                self._monitor.accepted()
                self._desk.enqueue(record.key, priority)

    def _is_known(self, key: str) -> bool:
        return self._desk.record(key) is not None

    async def submit(self, row: dict[str, Any]) -> Answer:
        """Accept a request: a manifest row as JSON."""
        try:
            async with self._checks:
                record, priority = await asyncio.to_thread(self._reception.accept, row)
            return await self._to_its_end(self._admitted(record, priority))
        except RefusedError as refused:
            return views.error(400, f"the request breaks rules: {refused}", problems=refused.problems)
        except FullError as full:
            return views.error(429, f"{full}: ask again later", RETRY_AFTER_S)
        except StorageError as failed:
            return views.error(503, f"the store failed: {failed}", RETRY_AFTER_S)
        except Exception as error:
            logger.exception("a request was not understood")
            return views.error(500, f"{type(error).__name__} in the endpoint, which its log tells of")

    async def _to_its_end(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Whoever asked may hang up: what has begun is not left half done."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _alone_with(self, key: str) -> asyncio.Lock:
        """Held by whoever admits or cancels a request of this key."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def _admitted(self, record: Record, priority: int) -> Answer:
        key = record.key
        async with self._alone_with(key):
            if (meta := await asyncio.to_thread(self._archive.meta, key)) is not None:
                return Answer(200, views.committed_video(meta))
            if self._desk.is_cancelled(key):
                return views.error(409, "the request is being cancelled: send it again in a moment", 1)
            if not self._desk.is_open(key):
                self._desk.admit(record)
                accepted = Accepted(record, priority, self._ground.run)
                try:
                    await asyncio.to_thread(self._archive.backlog.put, accepted)
                except StorageError:
                    self._desk.forget(key)
                    raise
                self._monitor.accepted()
                self._desk.enqueue(key, priority)
        return Answer(202, self._view(key) or {}, {"Location": f"/v1/videos/{key}"})

    async def look(self, key: str) -> dict[str, Any] | None:
        """The view of a request that is open here or was cancelled; None: the output knows, if anybody."""
        return self._view(key)

    async def videos(self) -> list[dict[str, Any]]:
        """The views of all open requests, those accepted first first."""
        return [view for key in self._desk.open_keys() if (view := self._view(key)) is not None]

    async def cancel(self, key: str) -> Answer:
        """End an open request."""
        try:
            return await self._to_its_end(self._cancelled(key))
        except StorageError as failed:
            return views.error(503, f"the store failed: {failed}", RETRY_AFTER_S)

    async def _cancelled(self, key: str) -> Answer:
        async with self._alone_with(key):
            if self._desk.is_open(key):
                await asyncio.to_thread(self._archive.backlog.remove, key)
            record = self._desk.record(key)
            if record is None or not self._desk.is_open(key):
                return views.error(409, "only a request that is open can be cancelled")
            if self._desk.cancel(key):
                await self._end(record.skip(CANCELLED), True)
            else:
                await self._line.cancel(key)
            return Answer(202, views.open_video(record, Status.CANCELLED, None))

    async def snapshot(self) -> dict[str, Any]:
        """What the whole endpoint does, as `live.json`."""
        return self._monitor.snapshot().to_json()

    async def check_health(self) -> None:
        """Ray Serve replaces this replica when it raises."""
        if (error := self._line.error or self._desk.error) is not None:
            raise error

    def _view(self, key: str) -> dict[str, Any] | None:
        record, status = self._desk.record(key), self._desk.status(key)
        if record is None or status is None:
            return None
        return views.open_video(record, status, self._monitor.progress(key))

    async def _render(self, record: Record) -> Record:
        while True:
            done = await self._line.render(record)
            again_s = time.monotonic() + PAUSE_S
            while done.skipped == CLAIMED and time.monotonic() < again_s:
                if self._stop.is_set() or self._desk.is_cancelled(record.key):
                    return done.skip(STOPPED)
                await asyncio.sleep(POLL_S)
            if done.skipped != CLAIMED:
                return done

    async def _end(self, record: Record, is_cancelled: bool) -> None:
        """A record has come back from the pools, or was cancelled before it went there."""
        if record.skipped == STOPPED and not is_cancelled:
            return  # the backlog keeps it for the next
        if record.clip is None and is_cancelled:
            record = record.skip(CANCELLED)
        await asyncio.to_thread(self._count, record)
        while not await self._is_forgotten(record.key) and not self._stop.is_set():
            await asyncio.sleep(PAUSE_S)

    async def _is_forgotten(self, key: str) -> bool:
        """Remove a request that has ended from the queue, if the store lets us."""
        try:
            await asyncio.to_thread(self._archive.backlog.remove, key)
        except StorageError as error:
            logger.warning("it stays in the queue for now key=%s: %s", key, error)
            return False
        return True

    def _count(self, record: Record) -> None:
        if record.skipped == CANCELLED and self._claims.holder(record.key) in (NOBODY, self._ground.run):
            self._ground.ledger.clear_work(record.key)
        self._monitor.finished(record)

    async def __del__(self) -> None:
        """Drain: denoised requests are committed, others store how far they are and stay in the backlog."""
        self._stop.set()
        if self._adopter is not None:
            self._adopter.cancel()
            await self._desk.closed()
        await asyncio.to_thread(self._stack.close)

    def _conclude(self, monitor: Monitor) -> None:
        try:
            conclude(monitor, Summary.of(monitor))
        except StorageError as error:
            logger.warning("the summary is not stored: %s", error)
