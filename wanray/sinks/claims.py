"""Who renders what when several runs share one manifest: claims that end when their run falls silent.

A claim is an object `work/<key>/claim-<generation>.json`; only one run can create the next generation. Times
are the store's alone: a run is alive while its `runs/<run>/alive` is not much older than one's own.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from wanray.errors import StorageError
from wanray.storage import Store

logger = logging.getLogger(__name__)

SIGNS_PER_EXPIRY = 4
"""Signs of life that a run gives in the time after which it counts as dead."""
NOBODY = ""
"""Owner of a claim that was released."""


class Claims:
    """The claims of one run, which must give signs of life (`heartbeat`) as long as it holds any."""

    def __init__(self, store: Store, run: str, expires_s: float) -> None:
        self._store = store
        self._run = run
        self._expires_s = expires_s

    def take(self, key: str) -> str | None:
        """Claim `key`: None if it is ours, now or since before; else the name of the live run that has it.

        Raises:
            StorageError: the store failed; whether a claim was made is not known, so ask again.
        """
        while True:
            generation, owner = self._newest(key)
            if owner == self._run:
                return None
            if owner and self.is_alive(owner):
                return owner
            if self._store.create(_path(key, generation + 1), _claim(self._run)):
                return None

    def release(self, key: str) -> None:
        """Give up our claim of `key`, if we have one.

        Raises:
            StorageError: the store failed.
        """
        generation, owner = self._newest(key)
        if owner == self._run:
            # not deleted: were numbers used again, two runs could both win
            self._store.write(_path(key, generation), _claim(NOBODY))

    def _newest(self, key: str) -> tuple[int, str]:
        """(generation, owner) of the newest claim; (-1, NOBODY) if there is none."""
        names = [name for name in self._store.names(f"work/{key}") if name.startswith("claim-")]
        if not names:
            return -1, NOBODY
        generation = max(int(name[len("claim-") : -len(".json")]) for name in names)
        try:
            return generation, json.loads(self._store.read(_path(key, generation)))["run"]
        except FileNotFoundError:  # its clip was committed just now
            return generation, NOBODY

    def holder(self, key: str) -> str:
        """The run that holds `key`, alive or not; NOBODY if none does."""
        return self._newest(key)[1]

    def is_alive(self, run: str) -> bool:
        """Whether a run gave a sign of life, by the store's clock; while our own are lost we cannot tell, so
        that others live.
        """
        try:
            seen_s = self._store.modified(_alive(run))
        except FileNotFoundError:
            return False
        try:
            return seen_s > self._store.modified(_alive(self._run)) - self._expires_s
        except FileNotFoundError:
            return True


@contextmanager
def heartbeat(store: Store, run: str, expires_s: float) -> Iterator[None]:
    """Give signs of life of `run` until the end of the block.

    Raises:
        StorageError: not even the first can be given; later ones are tried again.
    """
    store.write(_alive(run), b"")
    ended = Event()
    thread = Thread(target=_beat, args=(store, run, expires_s / SIGNS_PER_EXPIRY, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StorageError):  # then its claims end by themselves
            store.delete(_alive(run))


def _beat(store: Store, run: str, every_s: float, ended: Event) -> None:
    while not ended.wait(every_s):
        try:
            store.write(_alive(run), b"")
        except StorageError as error:
            logger.warning("run=%s cannot give a sign of life, its claims may be lost: %s", run, error)


def _claim(run: str) -> bytes:
    return json.dumps({"run": run}).encode()


def _path(key: str, generation: int) -> str:
    return f"work/{key}/claim-{generation:06d}.json"


def _alive(run: str) -> str:
    return f"runs/{run}/alive"
