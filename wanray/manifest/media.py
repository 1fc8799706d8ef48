"""Opens the media that a manifest names: is each what its column says, how large, with which digest?"""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from wanray.errors import InfrastructureError, InputError, StorageError
from wanray.manifest.columns import MEDIA_COLUMNS
from wanray.manifest.problems import SHOWN_PATH_CHARS, Problem, excerpt
from wanray.media import digest, probe_image, probe_video, read_media, shown

NUM_THREADS = 16
"""Opening a file in a store is waiting."""
REMEMBERED = 16384
"""Media whose facts are kept, because rows often share one."""


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
    """

    def __init__(self, keep: Keep, columns: Collection[str] = MEDIA_COLUMNS) -> None:
        self._keep = keep
        self._columns = columns
        self._open_uri = lru_cache(REMEMBERED)(_open_uri)

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
            opened = list(threads.map(lambda item: self._open(item[1], item[2]), found))
            if all(isinstance(result, InfrastructureError) for result in opened):
                raise StorageError(str(opened[0]))
            for (row, name, source), result in zip(found, opened, strict=True):
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
                if "://" in source["path"] and urlsplit(source["path"]).password is not None:
                    return "its URL holds a password: give the store's own credentials instead"
                return self._open_uri(_probe_of(name), absolute(source["path"]))
            medium = _probe_of(name)(source["bytes"], digest(source["bytes"]), "")
            return replace(medium, uri=self._keep(medium.sha256, source["bytes"]))
        except (InputError, InfrastructureError, ValueError) as error:
            return error


def _sources(table: pa.Table, name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for row, value in enumerate(table[name].to_pylist()):
        if value is not None:
            yield from ((row, name, source) for source in (value if isinstance(value, list) else [value]))


def _open_uri(probe: "Probe", uri: str) -> Medium:
    content = read_media(uri)
    return probe(content, digest(content), uri)


def absolute(uri: str) -> str:
    """`uri`, with a local path made absolute: workers have other working directories."""
    return uri if "://" in uri else str(Path(uri).absolute())


Probe = Callable[[bytes, str, str], Medium]


def _image(content: bytes, sha256: str, uri: str) -> Medium:
    info = probe_image(content)
    return Medium(sha256, uri, info.width, info.height)


def _video(content: bytes, sha256: str, uri: str) -> Medium:
    info = probe_video(content)
    return Medium(sha256, uri, info.width, info.height, info.num_frames, info.fps)


def _probe_of(name: str) -> Probe:
    return _video if name in ("video", "mask") else _image


def _label(source: dict[str, Any]) -> str:
    if source["bytes"] is not None:
        return f"{len(source['bytes'])} bytes"
    return excerpt(shown(source["path"]), SHOWN_PATH_CHARS)
