"""What is committed and what failed. The only file that knows where clips and failures lie in a store.

A clip is committed when its `meta.json` exists. The payload is written before it and it is created only
if absent, so of any number of attempts, killed or racing, exactly one commits.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from wanray.errors import StorageError
from wanray.records import FailedTry, Failure, Record
from wanray.sinks.encoded import PREFIXES, Encoded
from wanray.sinks.index import indexed_keys
from wanray.storage import Store

logger = logging.getLogger(__name__)

_NUM_REQUESTS = 16
"""In flight at once where they are remote; on a local disk threads only wait for each other."""
_ASK_EACH_UP_TO = 50
"""Folders of a remote prefix up to which a request each is cheaper than listing all that they hold."""


def clip_folder(key: str) -> str:
    """The folder of a clip, relative to the store."""
    return f"clips/{key[:2]}/{key}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """Commits clips to a store and tells what it holds. Safe to use from many processes at once."""

    store: Store

    def commit(
        self, record: Record, encoded: Encoded, poster: bytes, extra: dict[str, bytes], meta: dict[str, Any]
    ) -> bool:
        """Store a clip with its finished `meta`; True if this call committed it, False if another had before.

        `extra` maps names of further files in the clip's folder to their bytes. An attempt that is killed
        before it knows that it lost leaves its clip there, which `wanray gc` removes.
        """
        won = self._commit(record.key, encoded, {"poster.jpg": poster} | extra, meta)
        with _only_warning(record.key):
            if won:
                self._delete_clips_but(clip_folder(record.key), encoded.path)
            self.clear_work(record.key)
        return won

    def _commit(self, key: str, encoded: Encoded, beside: dict[str, bytes], meta: dict[str, Any]) -> bool:
        folder = clip_folder(key)
        if self.is_committed(key):
            return False
        self._write_all(folder, encoded.files)
        # Files beside the clip have no names of their own: what is committed keeps those of its attempt,
        # but for a race within these few lines.
        if not self.is_committed(key):
            self._write_all(folder, beside)
            # Before the commit: killed in between, the key is left to do; after it, a failure would stay.
            self.remove_failure(key)
            if self.store.create(f"{folder}/meta.json", _to_json(meta)):
                return True
        with _only_warning(key):
            self._delete_lost(folder, encoded)
        return False

    def is_committed(self, key: str) -> bool:
        """Whether the clip has its `meta.json`."""
        return self.store.exists(f"{clip_folder(key)}/meta.json")

    def clear_work(self, key: str) -> None:
        """Remove states and claims of a key that is committed."""
        for path in self.store.find(f"work/{key}"):
            self.store.delete(path)

    def read_meta(self, key: str) -> dict[str, Any] | None:
        """The `meta.json` of a clip, None if it is not committed."""
        return self._read_json(f"{clip_folder(key)}/meta.json")

    def committed_keys(self, trusted: set[bytes] | None = None) -> set[bytes]:
        """The 32-byte digests of all committed keys.

        In an object store, where a listing of all that a million folders hold takes minutes, a folder of a
        `trusted` key is not looked into; the default is the index, so what takes a `meta.json` away must
        take the key out of the index before. An empty set trusts nothing.
        """
        if trusted is None:
            trusted = indexed_keys(self.store) if self.store.is_remote else set()
        committed: set[bytes] = set()
        with self._pool() as pool:
            prefixes = self.store.names("clips")
            for part in pool.map(lambda prefix: self._committed_below(f"clips/{prefix}", trusted), prefixes):
                committed |= part
        return committed

    def write_failure(
        self, key: str, ids: Iterable[str], failure: Failure, run: str, request_json: str | None
    ) -> None:
        """Store why `key` could not be rendered; `request_json` is None where there is no valid request."""
        content = {
            "key": key,
            "ids": list(ids),
            "stage": failure.stage,
            "class": failure.failure_class,
            "cause": failure.cause,
            "message": failure.message,
            "attempts": failure.attempts,
            "causes": [_cause(item) for item in failure.tries],
            "run": run,
            "request": None if request_json is None else json.loads(request_json),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.store.write(_failure_path(key), _to_json(content))

    def read_failure(self, key: str) -> dict[str, Any] | None:
        """The failure record of a key, None if it has none."""
        return self._read_json(_failure_path(key))

    def keys_failed_for_good(self) -> set[bytes]:
        """The 32-byte digests of requests that would fail again, since infrastructure was not the reason."""
        with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
            records = pool.map(self.read_failure, self.failures())
            lasting = [item["key"] for item in records if item and item["class"] != "infrastructure"]
        return _digests(lasting)

    def remove_failure(self, key: str) -> None:
        """Forget that `key` failed."""
        self.store.delete(_failure_path(key))

    def failures(self) -> list[str]:
        """The keys that have a failure record, sorted."""
        return [name.removesuffix(".json") for name in self.store.names("failures")]

    def _committed_below(self, folder: str, trusted: set[bytes]) -> set[bytes]:
        """The committed keys of one prefix: listed, and with a meta.json or trusted to have one."""
        listed = _digests(self.store.names(folder))
        unknown = listed - trusted if self.store.is_remote else listed
        if self.store.is_remote and len(unknown) > _ASK_EACH_UP_TO:
            paths = (path.split("/") for path in self.store.find(folder))
            return _digests(path[2] for path in paths if path[3:] == ["meta.json"])
        absent = {digest for digest in unknown if not self.store.exists(f"{folder}/{digest.hex()}/meta.json")}
        return listed - absent

    def _write_all(self, folder: str, files: dict[str, bytes]) -> None:
        """Write all of `files`; many at once where a call is a round trip."""
        with self._pool() as pool:
            for _ in pool.map(lambda name: self.store.write(f"{folder}/{name}", files[name]), files):
                pass

    def _delete_clips_but(self, folder: str, path: str) -> None:
        """Remove what killed attempts left beside the committed clip."""
        for found in self.store.find(folder):
            name = found.removeprefix(f"{folder}/").split("/")[0]
            if name.startswith(PREFIXES) and name != path:
                self.store.delete(found)

    def _delete_lost(self, folder: str, encoded: Encoded) -> None:
        """Remove our clip, unless the attempt that won made the same one."""
        winner = json.loads(self.store.read(f"{folder}/meta.json"))
        if winner["video"]["path"] != f"{folder}/{encoded.path}":
            for name in encoded.files:
                self.store.delete(f"{folder}/{name}")

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_NUM_REQUESTS if self.store.is_remote else 1)

    def _read_json(self, path: str) -> dict[str, Any] | None:
        try:
            return json.loads(self.store.read(path))
        except FileNotFoundError:
            return None


@contextmanager
def _only_warning(key: str) -> Iterator[None]:
    """What is not removed beside a committed clip harms nobody, and `wanray gc` removes it later."""
    try:
        yield
    except StorageError as error:
        logger.warning("leftovers of a committed clip stay key=%s: %s", key, error)


def _cause(failed: FailedTry) -> dict[str, str]:
    return {
        "stage": failed.stage,
        "class": failed.failure_class,
        "cause": failed.cause,
        "message": failed.message,
    }


def _failure_path(key: str) -> str:
    return f"failures/{key}.json"


def _digests(names: Iterable[str]) -> set[bytes]:
    """The digests that are written in `names`; what is no key (a stray file) is left out."""
    return {bytes.fromhex(name) for name in names if len(name) == 64}


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).encode()
