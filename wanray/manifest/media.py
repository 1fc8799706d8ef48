"""Opens the media that a manifest names: does each exist, and is its header what the column says?"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import av
import fsspec
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from wanray.manifest.columns import MEDIA_COLUMNS
from wanray.manifest.problems import SHOWN_PATH_CHARS, Problem, excerpt

NUM_THREADS = 16
"""Opening a file in a store is waiting."""


def _open_image(file: IO[bytes]) -> None:
    with Image.open(file) as image:
        image.verify()


def _open_stream(kind: str) -> Callable[[IO[bytes]], None]:
    def check(file: IO[bytes]) -> None:
        with av.open(file) as container:
            # a broken picture has a video stream without a size
            if not any(stream.type == kind and getattr(stream, "width", 1) for stream in container.streams):
                raise ValueError(f"it has no {kind} stream")

    return check


OPENERS: dict[str, Callable[[IO[bytes]], None]] = {
    "image": _open_image,
    "last_image": _open_image,
    "reference_images": _open_image,
    "video": _open_stream("video"),
    "mask": _open_stream("video"),  # a still image opens as a video of one frame
    "pose_video": _open_stream("video"),
    "audio": _open_stream("audio"),
}


def check_media(table: pa.Table) -> list[Problem]:
    """A problem for each medium of a normalised batch that cannot be opened, with file and reason."""
    found = [item for name in MEDIA_COLUMNS if name in table.column_names for item in _sources(table, name)]
    if not found:
        return []
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        reasons = threads.map(lambda item: _why_not(item[1], item[2]), found)
        return [
            Problem(row, "", name, f"must be a readable file, got {_label(source)}: {reason}")
            for (row, name, source), reason in zip(found, reasons, strict=True)
            if reason is not None
        ]


def _sources(table: pa.Table, name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for row, value in enumerate(table[name].to_pylist()):
        if value is not None:
            yield from ((row, name, source) for source in (value if isinstance(value, list) else [value]))


def _why_not(name: str, source: dict[str, Any]) -> str | None:
    """The reason why a medium cannot be opened; None if it can."""
    try:
        with _opened(source) as file:
            OPENERS[name](file)
    except FileNotFoundError:
        return "it does not exist"
    except IsADirectoryError:
        return "it is a folder"
    except UnidentifiedImageError:
        return "it is no image of a known format"
    except Exception as error:  # noqa: BLE001 - stores, Pillow and FFmpeg raise classes of their own
        return str(error) or type(error).__name__
    return None


def _opened(source: dict[str, Any]) -> Any:
    return fsspec.open(source["path"], "rb") if source["bytes"] is None else io.BytesIO(source["bytes"])


def _label(source: dict[str, Any]) -> str:
    if source["bytes"] is not None:
        return f"{len(source['bytes'])} bytes"
    return excerpt(source["path"], SHOWN_PATH_CHARS)
