"""Whether one committed clip is what its meta.json says. Reads the clip, changes nothing."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from wanray.records import Clip
from wanray.registry import MODELS
from wanray.sinks.encoded import PREFIXES
from wanray.sinks.ledger import clip_folder
from wanray.storage import Store
from wanray.upkeep.frames import decode_all

FIELDS: dict[str, type] = {
    "key": str,
    "ids": list,
    "request": dict,
    "video": dict,
    "model": dict,
    "numerics": dict,
    "topology": dict,
    "timings_s": dict,
    "attempts": int,
    "versions": dict,
    "created_at": str,
}
"""What every meta.json has."""
VIDEO_FIELDS: dict[str, type | tuple[type, ...]] = {
    "path": str,
    "sha256": str,
    "bytes": int,
    "codec": str,
    "width": int,
    "height": int,
    "num_frames": int,
    "fps": (int, float),
}
"""What its `video` has: `wanray.records.Clip`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One thing that is wrong with a clip."""

    key: str
    ids: tuple[str, ...]
    """As meta.json has them; none where it tells none."""
    path: str
    """Relative to the store."""
    expected: str
    found: str


class _WrongError(Exception):
    """(path, expected, found)"""


def check_clip(store: Store, key: str, *, fast: bool) -> list[Damage]:
    """Everything that is wrong; `fast` looks only at meta.json, and whether files are there in their size.

    Raises:
        StorageError: the store failed, which says nothing about the clip.
    """
    ids: tuple[str, ...] = ()
    try:
        meta = _read_meta(store, key)
        ids = tuple(map(str, meta["ids"]))
        wrong = list(_wrong_files(store, key, meta, fast))
    except _WrongError as error:
        wrong = [error.args]
    return [
        Damage(key=key, ids=ids, path=path, expected=expected, found=found) for path, expected, found in wrong
    ]


def _read_meta(store: Store, key: str) -> dict[str, Any]:
    path = f"{clip_folder(key)}/meta.json"
    try:
        meta = json.loads(store.read(path))
    except FileNotFoundError:
        raise _WrongError(path, "the meta.json of a clip that is in the index", "none") from None
    except ValueError as error:
        raise _WrongError(path, "JSON", f"{error}") from None
    if not isinstance(meta, dict):
        raise _WrongError(path, "a JSON object", f"a {type(meta).__name__}")
    _check_fields(path, meta, FIELDS, "")
    _check_fields(path, meta["video"], VIDEO_FIELDS, "video.")
    if meta["key"] != key:
        raise _WrongError(path, f"key {key}", f"key {meta['key']}")
    video, request = meta["video"], meta["request"]
    for name in ("width", "height", "num_frames"):
        if video[name] != request.get(name):
            raise _WrongError(path, f"video.{name} {request.get(name)} as in request", str(video[name]))
    folder, _, name = video["path"].rpartition("/")
    if folder != clip_folder(key) or not name.startswith(PREFIXES):
        raise _WrongError(path, f"a video.path below {clip_folder(key)}/", video["path"])
    return meta


def _check_fields(path: str, values: dict[str, Any], fields: dict[str, Any], where: str) -> None:
    for name, kind in fields.items():
        if name not in values:
            raise _WrongError(path, f"the field {where}{name}", "none")
        if not isinstance(values[name], kind):
            raise _WrongError(path, f"another type of {where}{name}", f"{values[name]!r:.60}")


def _wrong_files(store: Store, key: str, meta: dict[str, Any], fast: bool) -> Iterator[tuple[str, str, str]]:
    folder = clip_folder(key)
    sizes = store.sizes(folder)
    clip = Clip(**{name: meta["video"][name] for name in VIDEO_FIELDS})
    checks = [lambda: _check_video(store, clip, sizes, fast), lambda: _check_poster(folder, sizes)]
    if f"{folder}/latents.safetensors" in sizes and not fast:
        checks.append(lambda: _check_latents(store, folder, clip, meta["model"].get("name", "")))
    for check in checks:
        try:
            check()
        except _WrongError as error:
            yield error.args


def _check_poster(folder: str, sizes: dict[str, int]) -> None:
    path = f"{folder}/poster.jpg"
    if not sizes.get(path):
        raise _WrongError(path, "a poster", "an empty file" if path in sizes else "none")


def _check_video(store: Store, clip: Clip, sizes: dict[str, int], fast: bool) -> None:
    is_folder = clip.path not in sizes
    paths = [path for path in sizes if path.startswith(f"{clip.path}/")] if is_folder else [clip.path]
    if not paths:
        raise _WrongError(clip.path, f"a video of {clip.bytes} bytes", "none")
    if is_folder and len(paths) != clip.num_frames:
        raise _WrongError(clip.path, f"{clip.num_frames} files", f"{len(paths)} files")
    num_bytes = sum(sizes[path] for path in paths)
    if num_bytes != clip.bytes:
        raise _WrongError(clip.path, f"{clip.bytes} bytes", f"{num_bytes} bytes")
    if not fast:
        _check_content(clip, paths, [_read(store, path) for path in paths])


def _check_content(clip: Clip, paths: list[str], contents: list[bytes]) -> None:
    sha256 = hashlib.sha256()
    for data in contents:
        sha256.update(data)
    if sha256.hexdigest() != clip.sha256:
        raise _WrongError(clip.path, f"sha256 {clip.sha256}", f"sha256 {sha256.hexdigest()}")
    num_frames = 0
    for path, data in zip(paths, contents, strict=True):
        try:
            decoded = decode_all(data)
        except ValueError as error:
            raise _WrongError(path, f"{clip.num_frames} frames that decode", str(error)) from None
        num_frames += decoded.num_frames
        if (decoded.width, decoded.height) != (clip.width, clip.height):
            raise _WrongError(path, f"{clip.width}x{clip.height} pixels", f"{decoded.width}x{decoded.height}")
    # An animated WebP shows the first of equal frames for longer.
    if num_frames != clip.num_frames and not (clip.codec == "webp" and num_frames < clip.num_frames):
        raise _WrongError(clip.path, f"{clip.num_frames} frames", f"{num_frames} frames")


def _check_latents(store: Store, folder: str, clip: Clip, model_name: str) -> None:
    path = f"{folder}/latents.safetensors"
    try:
        latents = load(_read(store, path))["latents"]
    except (SafetensorError, KeyError) as error:
        raise _WrongError(path, "a safetensors file with `latents`", f"{error!r}") from None
    model = MODELS.get(model_name)
    if model is None:
        return
    frames = (clip.num_frames - 1) // model.temporal_stride + 1
    cells = (clip.height // model.spatial_stride, clip.width // model.spatial_stride)
    expected = f"float32 {[model.latent_channels, frames, *cells]}"
    found = f"{latents.dtype} {list(latents.shape)}"
    if found != expected:
        raise _WrongError(path, expected, found)


def _read(store: Store, path: str) -> bytes:
    try:
        return store.read(path)
    except FileNotFoundError:
        raise _WrongError(path, "a file", "none") from None
