"""What runs left behind and nobody needs: finds it, and removes it. Never looks at runs/ and inputs/."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wanray.errors import ConfigError
from wanray.sinks.encoded import PREFIXES
from wanray.sinks.ledger import Ledger
from wanray.storage import Store, threads
from wanray.storage.folder import UNFINISHED
from wanray.upkeep.output import store_now
from wanray.upkeep.runs import running

DAY_S = 86400.0
PROBE_DAYS = 1.0
_MAY_BE_UNFINISHED = ("clips", "failures", "index", "work")

WORK_DONE = "state of committed clips"
WORK_OLD = "old state of clips that are not committed"
PROBES = "probes"
STRAYS = "clips of killed attempts beside committed ones"
FOLDERS = "old clip folders without meta.json"
UNWRITTEN = "files that were never written to their end"
FAILURES = "failure records of committed clips"


@dataclass(frozen=True, slots=True)
class Waste:
    """One object."""

    kind: str
    path: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """All of it."""

    waste: list[Waste]
    running: list[str]
    """Runs for whose sake everything that belongs to a clip that is not committed was left alone."""


def find_waste(ledger: Ledger, older_than_days: float) -> Found:
    """What can go; `older_than_days` is for what a run could still take up.

    Raises:
        StorageError: the store cannot be reached.
    """
    if not older_than_days >= 0:
        raise ConfigError(f"--older-than-days must be at least 0, got {older_than_days}")
    now_s = store_now(ledger.store)
    live = running(ledger.store, now_s)
    before_s = None if live else now_s - older_than_days * DAY_S
    search = _Search(ledger, now_s, before_s)
    return Found([*search.clips(), *search.work(), *search.failures(), *search.unwritten()], live)


def remove(ledger: Ledger, waste: Iterable[Waste]) -> None:
    """Remove what was found, but no clip that was committed since."""

    def remove_one(item: Waste) -> None:
        if item.kind != FOLDERS or not ledger.is_committed(item.path.split("/")[2]):
            ledger.store.delete(item.path)

    with threads(ledger.store) as pool:
        for _ in pool.map(remove_one, waste):
            pass


class _Search:
    """One pass over the output; `clips` comes first, since it learns what is committed."""

    def __init__(self, ledger: Ledger, now_s: float, before_s: float | None) -> None:
        self._ledger, self._store = ledger, ledger.store
        self._now_s, self._before_s = now_s, before_s
        self._committed: set[str] = set()

    def clips(self) -> Iterator[Waste]:
        """Strays beside committed clips, and old folders without a commit."""
        with threads(self._store) as pool:
            prefixes = [f"clips/{prefix}" for prefix in self._store.names("clips")]
            for sizes in pool.map(self._store.sizes, prefixes):
                for key, files in _by_part(sizes, 2).items():
                    yield from self._clip(key, files)

    def _clip(self, key: str, files: dict[str, int]) -> Iterator[Waste]:
        if f"clips/{key[:2]}/{key}/meta.json" in files:
            self._committed.add(key)
            yield from _waste(STRAYS, self._strays(key, files))
        elif len(key) == 64 and self._are_old(files):
            yield from _waste(FOLDERS, files)

    def _strays(self, key: str, files: dict[str, int]) -> dict[str, int]:
        own = {path: path.split("/")[3] for path in files if path.split("/")[3].startswith(PREFIXES)}
        if len(set(own.values())) < 2:
            return {}
        try:
            meta = self._ledger.read_meta(key)
            named = meta["video"]["path"].split("/")[3] if meta else ""
        except (ValueError, KeyError, TypeError, IndexError):  # broken: `wanray verify` tells
            return {}
        if named not in own.values():
            return {}
        return {path: files[path] for path, name in own.items() if name != named}

    def work(self) -> Iterator[Waste]:
        """State of clips that are done or were given up, and probes."""
        for name, files in _by_part(self._store.sizes("work"), 1).items():
            if name in self._committed:
                yield from _waste(WORK_DONE, files)
            elif name.startswith("probe-"):
                if _is_older(self._store, files, self._now_s - PROBE_DAYS * DAY_S):
                    yield from _waste(PROBES, files)
            elif self._are_old(files):
                yield from _waste(WORK_OLD, files)

    def failures(self) -> Iterator[Waste]:
        """Records that another run's commit overtook."""
        sizes = self._store.sizes("failures")
        names = {path: path.removeprefix("failures/").removesuffix(".json") for path in sizes}
        done = {path: sizes[path] for path, key in names.items() if key in self._committed}
        yield from _waste(FAILURES, done)

    def unwritten(self) -> Iterator[Waste]:
        """What processes killed in the middle of a write left in a local folder."""
        if self._store.is_remote:
            return
        for top in _MAY_BE_UNFINISHED:
            for folder, _, names in os.walk(Path(self._store.url) / top):
                for name in names:
                    if name.startswith(UNFINISHED):
                        path = (Path(folder) / name).relative_to(self._store.url).as_posix()
                        if _is_older(self._store, [path], self._now_s - PROBE_DAYS * DAY_S):
                            yield Waste(UNWRITTEN, path, (Path(folder) / name).stat().st_size)

    def _are_old(self, paths: Iterable[str]) -> bool:
        return self._before_s is not None and _is_older(self._store, paths, self._before_s)


def _is_older(store: Store, paths: Iterable[str], before_s: float) -> bool:
    """Whether all were last put before; what is gone meanwhile belongs to somebody who is at work."""
    try:
        return all(store.modified(path) <= before_s for path in paths)
    except FileNotFoundError:
        return False


def _by_part(sizes: dict[str, int], index: int) -> dict[str, dict[str, int]]:
    """The files by the part number `index` of their path; those with a shorter path are left out."""
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in sizes.items():
        parts = path.split("/")
        if len(parts) > index:
            groups[parts[index]][path] = size
    return groups


def _waste(kind: str, files: dict[str, int]) -> Iterator[Waste]:
    return (Waste(kind, path, size) for path, size in files.items())
