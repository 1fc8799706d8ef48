"""Opens the media that a manifest names: is each what its column says, how large, with which digest?"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
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
    has_audio: bool = False


Media = dict[int, dict[str, tuple[Medium, ...]]]
"""Row within the batch -> column -> its media in order; rows without any are left out."""

Keep = Callable[[str, bytes], str]
"""`keep(sha256, content)`: store bytes that came inside the manifest; returns their URI."""


class MediaOpener:
    """Opens the media of one plan; a file that many rows name is read once."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._open_uri = lru_cache(REMEMBERED)(_open_uri)

    def open(self, table: pa.Table) -> tuple[Media, list[Problem]]:
        """The media of a normalised batch, and a problem for each that cannot be used, with file and reason.

        Raises:
            StorageError: a store failed; the media are not to blame.
        """
        columns = [name for name in MEDIA_COLUMNS if name in table.column_names]
        found = [item for name in columns for item in _sources(table, name)]
        media: Media = {}
        problems: list[Problem] = []
        if not found:
            return media, problems
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            opened = threads.map(lambda item: self._open(item[1], item[2]), found)
            for (row, name, source), result in zip(found, opened, strict=True):
                if isinstance(result, str):
                    says = f"must be a readable file, got {_label(source)}: {result}"
                    problems.append(Problem(row, "", name, says))
                else:
                    own = media.setdefault(row, {})
                    own[name] = (*own.get(name, ()), result)
        return media, problems

    def _open(self, name: str, source: dict[str, Any]) -> Medium | str:
        """The medium, or the reason why it cannot be used."""
        try:
            if source["bytes"] is None:
                return self._open_uri(_probe_of(name), absolute(source["path"]))
            medium = _probe_of(name)(source["bytes"], digest(source["bytes"]), "")
            return replace(medium, uri=self._keep(medium.sha256, source["bytes"]))
        except (InputError, ValueError) as error:
            return str(error)
        except InfrastructureError as error:
            raise StorageError(str(error)) from error
        except av.FFmpegError as error:
            return f"it cannot be decoded ({error.strerror})"


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
    return Medium(sha256, uri, info.width, info.height, info.num_frames, info.fps, info.has_audio)


def _audio(content: bytes, sha256: str, uri: str) -> Medium:
    with av.open(io.BytesIO(content)) as container:
        if not container.streams.audio:
            raise ValueError("it has no audio stream")
    return Medium(sha256, uri, has_audio=True)


def _probe_of(name: str) -> Probe:
    return {"video": _video, "mask": _video, "pose_video": _video, "audio": _audio}.get(name, _image)


def _label(source: dict[str, Any]) -> str:
    if source["bytes"] is not None:
        return f"{len(source['bytes'])} bytes"
    return excerpt(shown(source["path"]), SHOWN_PATH_CHARS)
