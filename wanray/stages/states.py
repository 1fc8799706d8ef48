"""States of clips in work: stored beside the loop, found again by whoever goes on. Knows names and bytes.

    work/<key>/state-<step>-<sha8>.safetensors    appears whole; a name that does not fit its bytes is ignored

A state belongs to a key, which decides all its values, so it does not matter who wrote it.
"""

import hashlib
import logging
import queue
import re
import threading
from collections import deque

from safetensors import SafetensorError

from wanray.errors import StorageError
from wanray.models.state import DenoiseState
from wanray.stages.payload import Payload
from wanray.storage import Store

logger = logging.getLogger(__name__)

KEPT = 2
"""States of a clip: the newest, and one to fall back on."""
NAME = re.compile(r"state-(\d{6})-([0-9a-f]{8})\.safetensors")


class States:
    """Writes and finds states of one output. One writer thread per instance."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._started = {name for name in store.names("work") if len(name) == 64}
        """Keys that had something when this worker came up: others are not looked for at their first try."""
        self._queue: queue.Queue[tuple[str, DenoiseState] | None] = queue.Queue(1)
        self._mine: dict[str, deque[str]] = {}
        """By key, paths of states that this worker stored since it took up what is in work: of that, and of
        the request before, whose last state may have been on its way."""
        self._ended = ""
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def begin(self, key: str, is_retry: bool) -> DenoiseState | None:
        """Take up `key`: the stored state with most steps, if there is any; damaged ones are passed over."""
        self._ended = ""
        self._mine.clear()
        if not is_retry and key not in self._started:
            return None
        try:
            found = self._stored(key)
            states = (self._read(path, *found[path]) for path in sorted(found, reverse=True))
            return next((state for state in states if state is not None), None)
        except StorageError as error:
            logger.warning("states of %s cannot be read, it starts again: %s", key, error)
            return None

    def at_step(self, key: str, step: int) -> DenoiseState:
        """The state of `key` that another rank has found.

        Raises:
            StorageError: it cannot be read.
        """
        found = self._stored(key)
        states = (self._read(path, *found[path]) for path in found if found[path][0] == step)
        state = next((state for state in states if state is not None), None)
        if state is None:
            raise StorageError(f"state {step} of {key} was there for rank 0, but not for this rank")
        return state

    def save_soon(self, key: str, state: DenoiseState) -> None:
        """Store a state beside the loop; left out where the former one is still on its way."""
        try:
            self._queue.put_nowait((key, state))
        except queue.Full:
            logger.info("state left out, the former is still being stored key=%s step=%d", key, state.step)

    def save(self, key: str, state: DenoiseState) -> None:
        """Store a state and return when it is safe.

        Raises:
            StorageError: it could not be stored.
        """
        data = Payload(state=state).pack()
        path = f"{_folder(key)}/state-{state.step:06d}-{_sha8(data)}.safetensors"
        self._store.write(path, data)
        mine = self._mine.setdefault(key, deque())
        mine.append(path)
        while len(mine) > (0 if key == self._ended else KEPT):
            self._store.delete(mine.popleft())

    def end(self, key: str) -> None:
        """This worker is through with `key`: a state that is still on its way is of no use."""
        self._ended = key

    def close(self) -> None:
        """Store what is on its way, and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout=60)

    def _stored(self, key: str) -> dict[str, tuple[int, str]]:
        """Path -> (steps, digest) of all states of `key`."""
        names = {name: NAME.fullmatch(name) for name in self._store.names(_folder(key))}
        return {f"{_folder(key)}/{name}": (int(m[1]), m[2]) for name, m in names.items() if m is not None}

    def _read(self, path: str, step: int, sha8: str) -> DenoiseState | None:
        try:
            data = self._store.read(path)
            state = Payload.unpack(data).state if _sha8(data) == sha8 else None
        except (FileNotFoundError, SafetensorError, ValueError, KeyError) as error:
            logger.warning("state %s is passed over: %r", path, error)
            return None
        return state if state is not None and state.step == step else None

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self.save(*item)
            except StorageError as error:
                logger.warning("state of %s at step %d is not stored: %s", item[0], item[1].step, error)


def _folder(key: str) -> str:
    return f"work/{key}"


def _sha8(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
