"""Outputs to make reports of: real files in every format, meta.json as the decode stage writes it."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from wanray.config.schema import VideoConfig
from wanray.errors import FailureCause, FailureClass
from wanray.records import Clip, FailedTry, Failure, Record, Request
from wanray.registry import Guidance
from wanray.sinks.encoded import Encoded
from wanray.sinks.events import EventLog
from wanray.sinks.index import append_index, index_row
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.sinks.video import encode_frames, encode_poster
from wanray.storage import Store

NUM_FRAMES, HEIGHT, WIDTH, FPS = 25, 48, 64, 10.0
START_S = 1_750_000_000.0
PLACES = ("harbour", "meadow", "city at night", "kitchen", "glacier")
FILLER = "seen from a slowly moving camera in soft light, with fine detail and a shallow depth of field " * 3
FORMATS = {
    "webm": {"format": "webm", "codec": "vp9"},
    "gif": {"format": "gif"},
    "webp": {"format": "webp"},
    "png": {"format": "png"},
    "h265": {"codec": "h265"},
}
HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
    "\u2028 {{data}} \u2029 &lt;b&gt; \u202egpj.exe \u05e9\u05dc\u05d5\u05dd"
)


def frame_of(index: int) -> np.ndarray:
    """A frame whose colour tells its number: red falls, blue rises."""
    frame_HWC = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame_HWC[...] = (250 - 10 * index, 30, 10 * index)
    return frame_HWC


def frames(num_frames: int = NUM_FRAMES) -> Iterator[np.ndarray]:
    return (frame_of(index) for index in range(num_frames))


def encoded(**video: Any) -> Encoded:
    """The frames as the VideoConfig that `video` says."""
    return encode_frames(frames(), FPS, VideoConfig(preset="veryfast", **video), {})


def key_of(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def request(prompt: str, seed: int = 0, **changes: Any) -> Request:
    values: dict[str, Any] = {"task": "t2v", "prompt": prompt, "negative_prompt": "", "seed": seed}
    values |= {
        "width": WIDTH,
        "height": HEIGHT,
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "steps": 4,
        "shift": 5.0,
    }
    values |= {"guidance": Guidance(high=5.0, low=5.0), "solver": "unipc"}
    return Request(**values | changes)


def meta_of(record: Record, clip: Clip, run: str, created_s: float) -> dict[str, Any]:
    """As `wanray.stages.decode` writes it."""
    return {
        "key": record.key,
        "ids": list(record.ids),
        "request": asdict(record.request),
        "extended": record.extended,
        "inputs": {},
        "video": asdict(clip),
        "model": {"name": "t2v-1.3b", "digest": "d" * 64},
        "numerics": {"mode": "official", "dtype": "float32", "vae_tiling": False},
        "topology": {"denoise": {"cfg": 1, "world_size": 1}},
        "timings_s": record.timings_s,
        "attempts": record.attempts,
        "failed_tries": [asdict(item) for item in record.tries],
        "versions": {"wanray": "0.1.0"},
        "created_at": _iso(created_s),
        "run": run,
        "tags": record.tags,
        "notes": list(record.notes),
    }


def _iso(moment_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(moment_s))


def write_many(folder: Path, num_clips: int) -> None:
    """The run `many`, written past the ledger, which would wait for the disk: clips share one small file."""
    events = [{"event": "run_started", "ts": START_S, "run": "many", "counts": {"left": num_clips}}]
    files = encoded()
    folder.mkdir(exist_ok=True)
    (folder / "video").write_bytes(files.files[files.path])
    (folder / "poster").write_bytes(encode_poster(frame_of(12)))
    for number in range(num_clips):
        key, moment_s = key_of(number), START_S + 5 * number
        wanted = request(f"{PLACES[number // 4 % len(PLACES)]}, take {number // 4} {FILLER}", number % 4)
        timings_s = {"encode": 0.2, "denoise": 3 + number % 7, "decode": 0.5 + number % 3}
        tags = {"scene": PLACES[number // 4 % len(PLACES)]}
        record = Record(key=key, ids=(f"row-{number}",), request=wanted, tags=tags, timings_s=timings_s)
        path = f"{clip_folder(key)}/{files.path}"
        clip = Clip(
            path=path,
            sha256=files.sha256,
            bytes=files.num_bytes,
            codec="h264",
            width=WIDTH,
            height=HEIGHT,
            num_frames=NUM_FRAMES,
            fps=FPS,
        )
        (folder / path).parent.mkdir(parents=True)
        (folder / path).hardlink_to(folder / "video")
        (folder / path).with_name("poster.jpg").hardlink_to(folder / "poster")
        meta = json.dumps(meta_of(record, clip, "many", moment_s))
        (folder / path).with_name("meta.json").write_text(meta)
        work = {"key": key, "pool": "denoise", "worker": number % 8}
        events += [
            {"event": "dispatched", "ts": moment_s, "attempt": 1, **work},
            {"event": "released", "ts": moment_s + 30, "outcome": "done", **work},
            {"event": "committed", "ts": moment_s + 31, "key": key, "video": path, "timings_s": timings_s},
        ]
    events.append({"event": "run_finished", "ts": START_S + 5 * num_clips + 31, "exit_code": 0})
    told = folder / "runs/many/events/000000.jsonl"
    told.parent.mkdir(parents=True)
    told.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    (folder / "runs/many/config.yaml").write_text("{}")


class RunWriter:
    """Writes clips and events of one run; one request after the other passes one worker per pool."""

    def __init__(self, ledger: Ledger, run: str = "night", start_s: float = START_S) -> None:
        self.ledger, self.run = ledger, run
        self.events = EventLog(ledger.store, run)
        self.now_s = self.start_s = start_s
        self.num_committed = self.num_failed = 0
        ledger.store.write(f"runs/{run}/config.yaml", b"{}")

    def start(self, left: int, invalid: int = 0) -> None:
        self.events.emit(
            "run_started", ts=self.now_s, run=self.run, counts={"left": left, "invalid": invalid}
        )
        self.now_s += 2.0

    def work(self, key: str, outcome: str = "done") -> dict[str, float]:
        """The events of one request in all pools; its timings."""
        timings_s = {"encode": 0.25, "denoise": 4.0, "decode": 0.5}
        for pool, seconds in timings_s.items():
            self.events.emit("dispatched", ts=self.now_s, key=key, pool=pool, worker=0, attempt=1)
            self.now_s += seconds
            self.events.emit("released", ts=self.now_s, key=key, pool=pool, worker=0, outcome=outcome)
        return timings_s

    def commit(
        self, name: str, wanted: Request, files: Encoded, poster: bytes | None = None, **changes: Any
    ) -> str:
        """A clip with its real files."""
        key = key_of(name)
        record = Record(key=key, ids=(name,), request=wanted, timings_s=self.work(key), **changes)
        clip = Clip(
            path=f"{clip_folder(key)}/{files.path}",
            sha256=files.sha256,
            bytes=files.num_bytes,
            codec=files.codec,
            width=wanted.width,
            height=wanted.height,
            num_frames=files.num_frames,
            fps=wanted.fps,
        )
        meta = meta_of(record, clip, self.run, self.now_s)
        assert self.ledger.commit(record, files, poster or encode_poster(frame_of(12)), {}, meta)
        self._committed(record, clip)
        return key

    def _committed(self, record: Record, clip: Clip) -> None:
        self.num_committed += 1
        timings_s = record.timings_s
        self.events.emit("committed", ts=self.now_s, key=record.key, video=clip.path, timings_s=timings_s)
        row = index_row(record.key, record.ids, record.request, clip, record.tags, _iso(self.now_s))
        append_index(self.ledger.store, self.run, [row], self.num_committed)

    def fail(self, name: str, wanted: Request | None, message: str, **changes: Any) -> str:
        """A failure record and its event."""
        key, self.num_failed = key_of(name), self.num_failed + 1
        kind: dict[str, Any] = {"stage": "denoise", "failure_class": FailureClass.MODEL, "message": message}
        kind |= {"cause": FailureCause.ERROR} | changes
        failure = Failure(**kind, tries=(FailedTry(**kind),))
        text = wanted.to_json() if wanted else None
        self.ledger.write_failure(key, [name], failure, self.run, text)
        if wanted:
            self.work(key, "failed")
            self.events.emit("failed", ts=self.now_s, key=key, attempts=1, **kind)
        return key

    def finish(self, exit_code: int = 0, **fields: Any) -> None:
        seconds = self.now_s - self.start_s
        self.events.emit("run_finished", ts=self.now_s, exit_code=exit_code, seconds=seconds, **fields)
        self.events.flush()


def write_night(store: Store) -> dict[str, str]:
    """The run `night`: every format, seeds, tags, hostile texts, failures; name -> key."""
    run, movie = RunWriter(Ledger(store)), encoded()
    run.start(left=14, invalid=2)
    keys = {}
    for seed in range(3):
        tags = {"scene": "harbour", "take": seed}
        keys[f"boat-{seed}"] = run.commit(f"boat-{seed}", request("a boat at dawn", seed), movie, tags=tags)
    for name, video in FORMATS.items():
        keys[name] = run.commit(name, request(f"a {name} clip"), encoded(**video), tags={"format": name})
    still = encode_frames(frames(1), FPS, VideoConfig(), {}, still=True)
    keys["still"] = run.commit("still", request("a still", num_frames=1), still)
    extended = {"prompt": "A wide boat, seen from above"}
    keys["wide"] = run.commit("wide", request("a wide boat", width=96), movie, extended=extended)
    tags = {"scene": HOSTILE, HOSTILE: "x"}
    keys["hostile"] = run.commit(HOSTILE, request(HOSTILE), movie, tags=tags, notes=(HOSTILE,))
    for number in range(3):
        message = f"expected {number} values, got NaN ({number:032x})"
        keys[f"nan-{number}"] = run.fail(f"nan-{number}", request("a storm", number), message)
    died = {"failure_class": FailureClass.INFRASTRUCTURE, "cause": FailureCause.WORKER_DIED}
    keys["died"] = run.fail("died", request(HOSTILE, 9), f"its worker died {HOSTILE}", **died)
    keys["bad"] = run.fail(
        "bad", None, 'row 3 (id "bad"): no', stage="plan", failure_class=FailureClass.INPUT
    )
    run.finish(exit_code=2)
    return keys
