"""Opens the media that a manifest names: is each what its column says, how large, with which digest?"""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from wanray.config import MediaConfig
from wanray.errors import InfrastructureError, InputError, StorageError
from wanray.manifest.columns import MEDIA_COLUMNS
from wanray.manifest.facts import MediaFacts
from wanray.manifest.problems import SHOWN_PATH_CHARS, Problem, excerpt
from wanray.media import (
    MAX_IMAGE_BYTES,
    MAX_VIDEO_BYTES,
    TooLargeError,
    allowed,
    digest,
    probe_image,
    probe_video,
    read_media,
    shown,
    stamp_of,
)

NUM_THREADS = 16
"""Opening a file in a store is waiting."""
REMEMBERED = 16384
"""Media whose facts are kept, because rows often share one."""
SMALL_BYTES = 2**25
"""Larger files are held in memory one at a time."""
MAX_BYTES = {"image": MAX_IMAGE_BYTES, "video": MAX_VIDEO_BYTES}
"""Of a medium, by its kind."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What the plan has to know of one file."""

    sha256: str
    uri: str
    """Where a worker finds it."""
    width: int = 0
    height: int = 0
    num_frames: int = 1
    fps: float = 0.0


Media = dict[int, dict[str, tuple[Medium, ...]]]
"""Row within the batch -> column -> its media in order; rows without any are left out."""

Keep = Callable[[str, bytes], str]
"""`keep(sha256, content)`: store bytes that came inside the manifest; returns their URI."""


class MediaOpener:
    """Opens the media of one plan; a file that many rows name is remembered.

    columns: those that the model takes; others are refused anyway.
    rules: what rows may name, with absolute roots; None: anything.
    """

    def __init__(
        self, keep: Keep, columns: Collection[str] = MEDIA_COLUMNS, rules: MediaConfig | None = None
    ) -> None:
        self._keep = keep
        self._columns = columns
        self._rules = rules
        self._one_large = Lock()
        self._open_uri = lru_cache(REMEMBERED)(self._read_uri)
        self._facts = MediaFacts()
        self._new: list[tuple[str, str, str, Medium]] = []

    def open(self, table: pa.Table) -> tuple[Media, list[Problem]]:
        """The media of a normalised batch, and a problem for each that cannot be used, with file and reason.

        Raises:
            StorageError: none could be read, because their stores failed.
        """
        columns = [name for name in MEDIA_COLUMNS if name in self._columns and name in table.column_names]
        found = [item for name in columns for item in _sources(table, name)]
        media: Media = {}
        problems: list[Problem] = []
        if not found:
            return media, problems
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            unique = {_identity(name, source): (name, source) for _, name, source in found}
            results = threads.map(lambda item: self._open(*item), unique.values())
            opened = dict(zip(unique, results, strict=True))
            self._facts.put(self._new)
            self._new.clear()
            if all(isinstance(result, InfrastructureError) for result in opened.values()):
                raise StorageError(str(next(iter(opened.values()))))
            for row, name, source in found:
                result = opened[_identity(name, source)]
                if isinstance(result, Medium):
                    own = media.setdefault(row, {})
                    own[name] = (*own.get(name, ()), result)
                else:
                    says = f"must be a readable file, got {_label(source)}: {result}"
                    problems.append(Problem(row, "", name, says))
        return media, problems

    def _open(self, name: str, source: dict[str, Any]) -> Medium | Exception | str:
        """The medium, or the reason why it cannot be used."""
        try:
            if source["bytes"] is None:
                if self._rules is not None:
                    allowed(source["path"], self._rules)
                if "://" in source["path"] and urlsplit(source["path"]).password is not None:
                    return "its URL holds a password: give the store's own credentials instead"
                return self._open_uri(_kind_of(name), absolute(source["path"]))
            if len(source["bytes"]) > MAX_BYTES[_kind_of(name)]:
                return f"they are more than the {MAX_BYTES[_kind_of(name)]} bytes that are allowed"
            medium = PROBES[_kind_of(name)](source["bytes"], digest(source["bytes"]), "")
            return replace(medium, uri=self._keep(medium.sha256, source["bytes"]))
        except (InputError, InfrastructureError, ValueError) as error:
            return error

    def _read_uri(self, kind: str, uri: str) -> Medium:
        """The medium as an earlier plan saw it, where nothing has changed since; else read."""
        stamp = stamp_of(uri)
        # without the query of a URL, which may be a signature that no other plan has
        known = None if stamp is None else self._facts.get(kind, shown(uri), stamp)
        if known is not None:
            return replace(Medium(**known), uri=uri)
        try:
            content = read_media(uri, SMALL_BYTES, self._rules)
            medium = PROBES[kind](content, digest(content), uri)
        except TooLargeError:
            with self._one_large:
                content = read_media(uri, MAX_BYTES[kind], self._rules)
                medium = PROBES[kind](content, digest(content), uri)
        if stamp is not None:
            self._new.append((kind, shown(uri), stamp, replace(medium, uri="")))
        return medium


def _identity(name: str, source: dict[str, Any]) -> tuple[Any, ...]:
    """Equal for sources that are opened in the same way to the same end."""
    return _kind_of(name), source["bytes"], source["path"]


def _sources(table: pa.Table, name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for row, value in enumerate(table[name].to_pylist()):
        if value is not None:
            yield from ((row, name, source) for source in (value if isinstance(value, list) else [value]))


def absolute(uri: str) -> str:
    """`uri`, with a local path made absolute: workers have other working directories."""
    return uri if "://" in uri else str(Path(uri).absolute())


def absolute_roots(rules: MediaConfig) -> MediaConfig:
    """`rules` as workers can use them, who have other working directories."""
    roots = rules.allow_roots
    return replace(rules, allow_roots=None if roots is None else [absolute(root) for root in roots])


def _image(content: bytes, sha256: str, uri: str) -> Medium:
    info = probe_image(content)
    return Medium(sha256, uri, info.width, info.height)


def _video(content: bytes, sha256: str, uri: str) -> Medium:
    info = probe_video(content)
    return Medium(sha256, uri, info.width, info.height, info.num_frames, info.fps)


PROBES: dict[str, Callable[[bytes, str, str], Medium]] = {"image": _image, "video": _video}
"""From content, digest and URI to the medium, by its kind."""


def _kind_of(name: str) -> str:
    return "video" if name in ("video", "mask") else "image"


def _label(source: dict[str, Any]) -> str:
    if source["bytes"] is not None:
        return f"{len(source['bytes'])} bytes"
    return excerpt(shown(source["path"]), SHOWN_PATH_CHARS)
