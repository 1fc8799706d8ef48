"""What a run has left in the store, read without wanray, and what is wrong with it. For `chaos.py`."""

import hashlib
import json
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import s3fs

FOLDERS = {"clips", "failures", "runs", "index", "work"}


class Output:
    """The store as it is, not through the proxy."""

    def __init__(self, endpoint: str, url: str) -> None:
        self.root = url.removeprefix("s3://")
        self.fs = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True)
        self._events: dict[str, list[dict[str, Any]]] = {}

    def files(self, folder: str = "") -> list[str]:
        """Paths of all objects, relative to the output."""
        found = self.fs.find(f"{self.root}/{folder}".rstrip("/"), detail=True).values()
        names = [item["name"] for item in found if item["type"] == "file"]
        return sorted(name.removeprefix(f"{self.root}/") for name in names)

    def read(self, path: str) -> bytes:
        """One object."""
        return self.fs.cat_file(f"{self.root}/{path}")

    def read_json(self, paths: list[str]) -> dict[str, Any]:
        """Many of them, by path."""
        with ThreadPoolExecutor(8) as threads:
            return dict(zip(paths, threads.map(lambda path: json.loads(self.read(path)), paths), strict=True))

    def num_ended(self) -> int:
        """Clips and failures."""
        committed = sum(path.endswith("/meta.json") for path in self.files("clips"))
        return committed + len(self.files("failures"))

    def is_uploading(self) -> bool:
        """Whether there is a clip without its meta.json."""
        names = defaultdict(set)
        for path in self.files("clips"):
            names[path.rpartition("/")[0]].add(path.rpartition("/")[2])
        return any("meta.json" not in found for found in names.values())

    def events(self) -> list[dict[str, Any]]:
        """All that was stored so far; files of events never change."""
        for path in self.files("runs"):
            if path.endswith(".jsonl") and path not in self._events:
                self._events[path] = [json.loads(line) for line in self.read(path).splitlines()]
        return [event for path in sorted(self._events) for event in self._events[path]]

    def pools(self) -> dict[int, str]:
        """Pid -> pool of all ranks that have loaded."""
        ready = [event for event in self.events() if event["event"] == "gang" and event["state"] == "idle"]
        return {
            int(place.rpartition(":")[2]): event["pool"]
            for event in ready
            for place in event["detail"].split()
        }


def check(output: Output, rows: list[dict[str, Any]]) -> list[str]:
    """What is not as promised, in words."""
    files = output.files()
    metas = output.read_json([path for path in files if path.endswith("/meta.json")])
    failures = output.read_json([path for path in files if path.startswith("failures/")])
    problems = [f"{path} belongs nowhere" for path in files if path.split("/")[0] not in FOLDERS]
    problems += [f"{path} is left" for path in files if path.startswith("work/")]
    problems += _check_ids("committed", [row["id"] for row in rows if _is_good(row)], metas)
    problems += _check_ids("failed", [row["id"] for row in rows if not _is_good(row)], failures)
    problems += _check_folders(files, metas)
    with ThreadPoolExecutor(8) as threads:
        problems += filter(None, threads.map(lambda path: _check_video(output, path, metas[path]), metas))
    for path, failure in failures.items():
        expected = "input" if failure["ids"][0].startswith("invalid") else "model"
        if failure["class"] != expected:
            problems.append(f"{path} is of class {failure['class']}: {failure['message']}")
    return problems


def _is_good(row: dict[str, Any]) -> bool:
    return row["id"].startswith("good")


def _check_ids(what: str, expected: list[str], records: dict[str, Any]) -> list[str]:
    found = Counter(name for record in records.values() for name in record["ids"])
    wrong = sorted(name for name in {*expected, *found} if found[name] != (name in expected))
    return [f"{name} is {what} {found[name]} times" for name in wrong]


def _check_folders(files: list[str], metas: dict[str, Any]) -> list[str]:
    expected = set()
    for path, meta in metas.items():
        folder = f"clips/{meta['key'][:2]}/{meta['key']}"
        expected |= {f"{folder}/meta.json", f"{folder}/poster.jpg", meta["video"]["path"]}
        if path != f"{folder}/meta.json":
            return [f"{path} says that its key is {meta['key']}"]
    found = {path for path in files if path.startswith("clips/")}
    return [f"{path} is missing" for path in expected - found] + [
        f"{path} is stray" for path in found - expected
    ]


def _check_video(output: Output, path: str, meta: dict[str, Any]) -> str:
    video = meta["video"]
    try:
        data = output.read(video["path"])
    except FileNotFoundError:
        return f"the video of {path} is missing"
    same = (len(data), hashlib.sha256(data).hexdigest()) == (video["bytes"], video["sha256"])
    return "" if same else f"{video['path']} is not what {path} says"


def facts_of(output: Output, folder: Path) -> dict[str, Any]:
    """What is worth knowing besides."""
    metas = output.read_json([path for path in output.files("clips") if path.endswith("/meta.json")])
    committed_s = {
        meta["key"]: datetime.fromisoformat(meta["created_at"]).timestamp() for meta in metas.values()
    }
    work = [event for event in output.events() if event["event"] == "dispatched"]
    late = {item["key"] for item in work if item["ts"] > committed_s.get(item["key"], sys.maxsize) + 5}
    released = Counter(
        (item["pool"], item["outcome"]) for item in output.events() if item["event"] == "released"
    )
    resumed = sum(any("went on from step" in note for note in meta["notes"]) for meta in metas.values())
    errors = [path.read_text() for path in folder.glob("driver-*.stderr")]
    return {
        "attempts of clips": words(Counter(meta["attempts"] for meta in metas.values())),
        "clips that went on from a state": resumed,
        "worked on after their commit": len(late),
        "put off to a later round": sum(item["event"] == "put_off" for item in output.events()),
        "left a pool": words({f"{pool} {outcome}": number for (pool, outcome), number in released.items()}),
        "tracebacks of the driver": sum(text.count("Traceback") for text in errors),
    }


def words(counts: dict[Any, int]) -> str:
    """`name: number`, sorted."""
    return ", ".join(f"{name}: {counts[name]}" for name in sorted(counts))
