"""Requests in the queue of an output that nobody works at any more: those this endpoint may go on with."""

import functools
from collections.abc import Callable

from wanray.engine.ground import Ground
from wanray.engine.pipeline import numerics_json
from wanray.records import NOT_EXTENDED, Record, content_key
from wanray.sinks.backlog import Accepted, Backlog
from wanray.sinks.claims import Claims


class Orphans:
    """As seen by the run of `ground`, which must give signs of life."""

    def __init__(self, ground: Ground) -> None:
        self._ground, store = ground, ground.ledger.store
        self._backlog = Backlog(store)
        self._claims = Claims(store, ground.run, ground.config.faults.claim_expires_s)

    def adopted(self, is_known: Callable[[str], bool]) -> list[Accepted]:
        """What this run promised before it died, or another that gave no sign of life; ours from now on.

        is_known: whether a key is in work here already.

        Raises:
            StorageError: the store failed.
        """
        adopted, is_alive = [], functools.cache(self._claims.is_alive)
        for key in self._backlog.accepted_keys():
            found = None if is_known(key) else self._backlog.get(key)
            if found is None or not self._can_render(found.record):
                continue
            if found.run != self._ground.run:
                if is_alive(found.run):
                    continue
                self._backlog.put(found._replace(run=self._ground.run))
            adopted.append(found)
        return adopted

    def _can_render(self, record: Record) -> bool:
        """Whether its key is of our weights, numerics and way to extend prompts: others would be other pixels
        under that key.
        """
        request, extension = record.request, self._ground.resolver.extension
        if request.extension != NOT_EXTENDED:
            told = extension and extension.of(request.task, bool(request.prompt.strip()), 0)
            if told != request.extension:
                return False
        numerics = numerics_json(self._ground.config.numerics)
        return content_key(request.to_json(), self._ground.model, numerics) == record.key
