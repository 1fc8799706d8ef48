"""The clips and failures that a page shows, as JSON-able dicts. Knows meta.json and failure records."""

import json
import logging
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from wanray.records import canonical_json
from wanray.report.history import ClipTimes
from wanray.report.links import Links
from wanray.report.reading import read_object
from wanray.sinks.index import indexed_times
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.storage import threads

logger = logging.getLogger(__name__)

_OF_ONE_CLIP = ("prompt", "seed", "inputs")
"""What of a request is told per clip; the rest is told once for all that share it."""


@dataclass(kw_only=True, slots=True)
class Gallery:
    """What is shown, and how much is not."""

    clips: list[dict[str, Any]] = field(default_factory=list)
    """Committed ones first, newest first; then the failed ones."""
    settings: list[dict[str, Any]] = field(default_factory=list)
    """What clips share, told once: `clips[n]["settings"]` is the number of the rest of the request with model
    and numerics, `clips[n]["made"]` that of what did the work."""
    num_left_out: int = 0
    num_unreadable: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)

    def number_of(self, settings: dict[str, Any]) -> int:
        """Of settings, which are told once."""
        number = self._numbers.setdefault(canonical_json(settings), len(self.settings))
        if number == len(self.settings):
            self.settings.append(settings)
        return number


def newest_keys(ledger: Ledger, limit: int) -> tuple[list[str], int]:
    """At most `limit` committed keys of the whole output, newest last, and how many there are."""
    times = indexed_times(ledger.store)
    committed = ledger.committed_keys(set(times))
    # What the index lacks was committed just now, or the index is old: show it.
    ordered = sorted(committed, key=lambda key: (times.get(key, "~"), key))
    return [key.hex() for key in ordered[-limit:]], len(committed)


def add_clips(
    gallery: Gallery, ledger: Ledger, keys: list[str], times: dict[str, ClipTimes], links: Links
) -> None:
    """Read and add the clips of `keys`, oldest first, in reverse order.

    Raises:
        StorageError: the store cannot be reached.
    """

    def read(key: str) -> tuple[str, dict[str, Any] | None]:
        return key, read_object(ledger.store, f"{clip_folder(key)}/meta.json")

    with threads(ledger.store) as pool:
        for key, meta in pool.map(read, reversed(keys)):
            try:
                if meta is None:
                    raise ValueError("there is none, or it is no JSON object")
                gallery.clips.append(_clip(gallery, meta, times.get(key), links))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                gallery.num_unreadable += 1
                logger.warning("left out of the report key=%s: its meta.json cannot be used: %r", key, error)


def _clip(gallery: Gallery, meta: dict[str, Any], times: ClipTimes | None, links: Links) -> dict[str, Any]:
    video, shared = meta["video"], {name: meta[name] for name in ("model", "numerics")}
    made = {name: meta[name] for name in ("topology", "versions")}
    folder = video["path"].rpartition("/")[0]
    clip = _request(gallery, meta["request"], shared) | {
        "status": "committed",
        "key": meta["key"],
        "ids": meta["ids"],
        "extended": meta.get("extended", {}),
        "video": video["path"],
        "bytes": video["bytes"],
        "codec": video["codec"],
        "num_frames": video["num_frames"],
        "fps": video["fps"],
        "tags": {name: _text(value) for name, value in meta.get("tags", {}).items()},
        "timings_s": meta["timings_s"],
        "whole_s": round(times.committed_s - times.first_s, 3) if times and times.first_s else None,
        "attempts": meta["attempts"],
        "tries": meta.get("failed_tries", []),
        "notes": meta.get("notes", []),
        "made": gallery.number_of(made),
        "created_at": meta["created_at"],
        "run": meta.get("run", ""),
    }
    clip["poster_url"] = links.presigned(f"{folder}/poster.jpg")
    if "." in video["path"].rpartition("/")[2]:  # not a folder of frames
        clip["video_url"] = links.presigned(video["path"])
    return {name: value for name, value in clip.items() if value not in (None, [], {})}


def add_failures(gallery: Gallery, ledger: Ledger, run: str | None, limit: int) -> None:
    """Read and add the failure records of `run`, None: of all runs; at most `limit` are looked at.

    Raises:
        StorageError: the store cannot be reached.
    """
    keys = ledger.failures()
    gallery.num_left_out += max(0, len(keys) - limit)
    with threads(ledger.store) as pool:
        records = pool.map(lambda key: read_object(ledger.store, f"failures/{key}.json"), keys[:limit])
        read = [(key, record) for key, record in zip(keys, records, strict=False) if record is not None]
    found = [_failure(gallery, key, record) for key, record in read if run in (None, record.get("run"))]
    gallery.clips += sorted(found, key=itemgetter("created_at"), reverse=True)


def _failure(gallery: Gallery, key: str, record: dict[str, Any]) -> dict[str, Any]:
    request = record.get("request") or {}
    wanted = _request(gallery, request, {}) if request else {"prompt": "", "seed": ""}
    failure = wanted | {
        "status": "failed",
        "key": key,
        "ids": record.get("ids", []),
        "stage": record.get("stage", ""),
        "class": record.get("class", ""),
        "cause": record.get("cause", ""),
        "message": record.get("message", ""),
        "attempts": record.get("attempts", 1),
        "tries": record.get("causes", []),
        "created_at": record.get("created_at", ""),
        "run": record.get("run", ""),
    }
    return {name: value for name, value in failure.items() if value not in (None, [], {})}


def _request(gallery: Gallery, request: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """What a page tells of a request; a seed is text, since numbers of browsers end at 2**53."""
    rest = {name: value for name, value in request.items() if name not in _OF_ONE_CLIP}
    # Every seed has one of its own, and is to be compared with the others of its prompt.
    rest["extension"] = {k: v for k, v in request.get("extension", {}).items() if k != "seed"}
    return {
        "prompt": request["prompt"],
        "seed": str(request["seed"]),
        "inputs": request.get("inputs", {}),
        "settings": gallery.number_of(rest | shared),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
