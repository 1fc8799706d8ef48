"""(f) What safety costs a gang per clip, and how soon work goes on after a rank or a node was killed.

Costs: on a real S3 server on this machine. `gang` is the time that a denoise loop loses, measured with and
without states being stored beside it; commit and events are paid by other processes. Recovery: two gangs of
one rank, a tiny model; all processes share this machine's cores, and a rank needs seconds of them to start.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.recovery import recovery_after_node, recovery_after_rank
from benchmarks.seaweed import BUCKET, CREDENTIALS, s3_server
from wanray.models.state import DenoiseState
from wanray.records import Record, Request
from wanray.registry import Guidance
from wanray.sinks.encoded import encoded_file
from wanray.sinks.events import EventLog
from wanray.sinks.ledger import Ledger, clip_folder
from wanray.stages.states import States
from wanray.storage import Store

CLIPS = 20
STEPS = 40
EVERY = 10
LATENTS = (1, 16, 21, 60, 104)
"""Of 81 frames at 832x480."""
STEP_S = 0.25
EVENTS_PER_CLIP = 8
VIDEO_BYTES = 3_000_000
REQUEST = Request(
    task="t2v", prompt="p", negative_prompt="", width=832, height=480, num_frames=81, fps=16.0, seed=1,
    steps=STEPS, shift=5.0, guidance=Guidance(high=5.0, low=5.0), solver="unipc",
)  # fmt: skip


def gang_seconds(store: Store, every: int) -> float:
    """Seconds of a loop of STEPS steps that only wait, storing its state every so many of them (0: never)."""
    states = States(store)
    key = f"{every:064x}"
    states.begin(key, is_retry=False)
    tensors = {name: torch.randn(LATENTS) for name in ("last_sample", "model_outputs.0", "model_outputs.1")}
    start = time.perf_counter()
    for step in range(1, STEPS + 1):
        time.sleep(STEP_S)  # a GPU computes meanwhile: the process is free
        if every and step % every == 0 and step < STEPS:
            states.save_soon(key, DenoiseState(torch.randn(LATENTS), step, tensors, {}))
    elapsed_s = time.perf_counter() - start
    states.close()
    return elapsed_s


def commit_seconds(store: Store) -> float:
    """Median seconds of one commit: video, poster, meta, and the removal of what was in work."""
    ledger, times_s = Ledger(store), []
    for number in range(CLIPS):
        record = Record(key=f"{number:064x}", ids=(str(number),), request=REQUEST)
        encoded = encoded_file("video", "mp4", os.urandom(VIDEO_BYTES), codec="h264", num_frames=81)
        path = f"{clip_folder(record.key)}/{encoded.path}"
        start = time.perf_counter()
        ledger.commit(record, encoded, b"poster", {}, {"key": record.key, "video": {"path": path}})
        times_s.append(time.perf_counter() - start)
    return statistics.median(times_s)


def event_seconds(store: Store) -> float:
    """Seconds per clip of telling and storing its events."""
    events = EventLog(store, "bench")
    start = time.perf_counter()
    for number in range(CLIPS * EVENTS_PER_CLIP):
        events.emit("dispatched", key=f"{number:064x}", pool="denoise", worker=0, attempt=1)
    events.flush()
    return (time.perf_counter() - start) / CLIPS


def run() -> list[dict[str, Any]]:
    """One row per quantity."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as endpoint:
        os.environ.update(CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint})
        store = Store.open(f"s3://{BUCKET}/bench")
        without_s, with_s = gang_seconds(store, 0), gang_seconds(store, EVERY)
        rows.append({"what": f"gang, {STEPS} steps of {STEP_S:g} s, no states stored", "seconds": without_s})
        rows.append({"what": f"the same, a state of 34 MB every {EVERY} steps", "seconds": with_s})
        rows.append({"what": "gang time per clip that storing states costs", "seconds": with_s - without_s})
        rows.append(
            {"what": "commit of a 3 MB clip (by the decode worker)", "seconds": commit_seconds(store)}
        )
        rows.append({"what": "events of a clip (by the driver)", "seconds": event_seconds(store)})
    for name, seconds in {**recovery_after_rank(), **recovery_after_node()}.items():
        rows.append({"what": name, "seconds": seconds})
    return rows
