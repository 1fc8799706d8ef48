"""The chaos test: a render in which something dies every few seconds, and of which nothing may be lost.

    python tests/chaos.py --rows 1000 --kills 100 [--seed 7] [--error-rate 0.05]

A simulated cluster (a head with driver, pools and proxies; two nodes with the ranks), S3 behind a proxy that
fails now and then, two pools of two gangs of two ranks. A seeded random source picks who is killed and when:
mostly as the run gets on, sometimes in the midst of recovery, and decoders between upload and commit. What
happens then is up to the clock, so a seed repeats the plan of a run, not its course.

Afterwards the store itself is read: each valid request committed exactly once, each bad one with a failure
record, and nothing else there. Exit code 0 or 1; the folder with the logs is kept after a failure.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

sys.path += [str(Path(__file__).parent / "engine"), str(Path(__file__).parents[1])]
from chaos_output import Output, check, facts_of, words
from chaos_world import Fleet, faults, proxy_before
from processes import title_of
from runs import ENVIRONMENT, SMALL, start, write_config

from benchmarks.seaweed import CREDENTIALS, s3_server

KINDS = {"rank": 45, "pool": 12, "proxy": 12, "worker": 14, "raylet": 5, "driver": 8, "term": 4}
"""Kind of victim -> weight. `worker` is one of encode or decode; `term` is SIGTERM for the driver."""
TITLES = {"rank": "ray::Rank", "worker": "ray::Rank", "pool": "ray::GangPool", "proxy": "ray::MapWorker"}
DENOISE = ("denoise_high", "denoise_low")
POOLS = {"rank": DENOISE, "worker": ("encode", "decode")}
"""Whose ranks are of this kind; one that has not loaded is of either."""
LARGE = {"width": 128, "height": 128}
"""More than the tiny model, with its positions cut, can embed."""

IN_A_ROW = 0.3
"""Share of the kills that follow the one before at once, in the midst of recovery."""
RARELY = ("driver", "term", "raylet")
"""Kinds that wait for rows to end first, since starting again takes long."""
LONGEST_WAIT_S = 150.0
BUSY_WAIT_S = 3.0
PATIENCE_S = 300.0
"""A run that commits nothing for so long, though nothing is killed, hangs."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to happen."""

    rows: int
    kills: int
    seed: int
    error_rate: float = 0.05
    gangs: int = 2
    """In each of the two denoise pools; as many decode workers."""
    kinds: tuple[str, ...] = tuple(KINDS)
    first: tuple[str, ...] = ()
    """Kinds to kill first, in this order; the rest is drawn."""


class Broken(Exception):  # noqa: N818 - a promise, not an error
    """What was promised and did not hold."""


@dataclass
class Course:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    exits: list[int] = field(default_factory=list)
    """Exit codes of the driver, in order."""
    facts: dict[str, Any] = field(default_factory=dict)


class Chaos:
    """One run, its killings and its restarts."""

    def __init__(
        self, options: Options, arguments: list[str], fleet: Fleet, output: Output, proxy: str, folder: Path
    ) -> None:
        self.options, self.arguments, self.fleet, self.output = options, arguments, fleet, output
        self.proxy, self.folder = proxy, folder
        self.random = random.Random(options.seed)
        self.course = Course()
        self.driver: subprocess.Popen[str]
        self.kills_left = options.kills
        self.num_ended = self.num_final = 0
        self.started_s = self.moved_s = self.counted_s = time.monotonic()

    def run(self) -> None:
        """Start the driver, kill and restart until all rows have ended."""
        self._start()
        self._plan_next()
        while self.driver.poll() is None or not self._is_over():
            self.fleet.tend()
            self._count()
            if self.kills_left and self._is_time():
                self._strike()
            if time.monotonic() - self.moved_s > PATIENCE_S:
                self._say_who_lives()
                raise Broken(f"nothing was committed for {PATIENCE_S:.0f} s, though nothing was killed")
            time.sleep(0.1)

    def _start(self) -> None:
        with (self.folder / f"driver-{len(self.course.exits):03d}.stderr").open("w") as errors:
            self.driver = start(self.arguments, stderr=errors)

    def _is_over(self) -> bool:
        code = self.driver.wait()
        self.course.exits.append(code)
        self._say(f"driver ended with {code}")
        if code in (0, 2) and not self._is_infrastructure_left():
            return True
        if code in (0, 2):
            self.num_final += 1
            faults(self.proxy, error_rate=0)
            if self.num_final > 3:
                raise Broken("requests still fail for reasons of infrastructure, though nothing is wrong")
        self._start()
        return False

    def _is_infrastructure_left(self) -> bool:
        failures = self.output.read_json(self.output.files("failures"))
        return any(item["class"] == "infrastructure" for item in failures.values())

    def _count(self) -> None:
        if time.monotonic() - self.counted_s < 1:
            return
        self.counted_s, before, self.num_ended = time.monotonic(), self.num_ended, self.output.num_ended()
        if self.num_ended != before:
            self.moved_s = time.monotonic()

    def _plan_next(self) -> None:
        """Whom to kill next, and when: after so many more rows, or in a moment."""
        self.kind = self._draw_kind()
        now, left = time.monotonic(), self.options.rows - self.num_ended
        at_once = self.kind not in RARELY and self.random.random() < IN_A_ROW
        self.at_s = now + (self.random.uniform(0.2, 6) if at_once else LONGEST_WAIT_S)
        share = self.random.uniform(0, 2) * left / max(1, self.kills_left)
        self.at_ended = self.num_ended + max(1, int(share))
        self.delay_s = self.random.uniform(0, 1)

    def _is_time(self) -> bool:
        if self.num_ended >= self.at_ended:
            self.at_s = min(self.at_s, time.monotonic() + self.delay_s)
            self.at_ended = sys.maxsize
        return time.monotonic() >= self.at_s

    def _strike(self) -> None:
        """Kill, or wait a moment where there is no such process yet."""
        if self._kill(self.kind):
            self.course.kills[self.kind] += 1
            self.kills_left -= 1
            self.moved_s = time.monotonic()
            self._plan_next()
        elif time.monotonic() - self.moved_s > LONGEST_WAIT_S:
            self._plan_next()
        else:
            self.at_s = time.monotonic() + 0.5

    def _draw_kind(self) -> str:
        num_kills = self.course.kills.total()
        if num_kills < len(self.options.first):
            return self.options.first[num_kills]
        kinds = [kind for kind in KINDS if kind in self.options.kinds]
        return self.random.choices(kinds, [KINDS[kind] for kind in kinds])[0]

    def _kill(self, kind: str) -> bool:
        if kind == "raylet":
            killed = self.fleet.kill_node()
            self._say("kill raylet" if killed else "no raylet is left to kill")
            return killed
        if kind in ("driver", "term"):
            number = signal.SIGKILL if kind == "driver" else signal.SIGTERM
            self._say(f"kill {kind} {self.driver.pid}")
            self.driver.send_signal(number)
            return True
        pid = self._choose(kind)
        if pid is None:
            return False
        self._say(f"kill {kind} {pid} {title_of(pid)} of {self.output.pools().get(pid, 'a pool')}")
        return _end(pid)

    def _choose(self, kind: str) -> int | None:
        """A process of this kind; with luck in the midst of its work, a decoder that of a commit."""
        pools = self.output.pools()
        patience_s = BUSY_WAIT_S if kind in POOLS and self.random.random() < 0.5 else 0
        deadline_s = time.monotonic() + patience_s
        while True:
            titles = {pid: title_of(pid) for pid in self.fleet.processes()}
            pids = sorted(pid for pid in titles if titles[pid].startswith(TITLES[kind]))
            pids = [pid for pid in pids if pools.get(pid) in (None, *POOLS.get(kind, ()))]
            busy = [pid for pid in pids if titles[pid].endswith(".run") and pid in pools]
            if time.monotonic() >= deadline_s or (self.output.is_uploading() if kind == "worker" else busy):
                return self.random.choice(busy or pids) if pids else None
            time.sleep(0.02)

    def _say(self, what: str) -> None:
        num_kills = self.course.kills.total() + what.startswith("kill")
        elapsed_s = time.monotonic() - self.started_s
        line = f"{elapsed_s:7.1f} s  {self.num_ended:4d} rows  {num_kills:3d} kills  {what}\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        with (self.folder / "chaos.log").open("a") as log:
            log.write(f"{time.time():.3f} {line}")

    def _say_who_lives(self) -> None:
        pids = sorted(self.fleet.processes() | {self.driver.pid})
        lines = [f"{pid} {_state(pid)} {title_of(pid)}" for pid in pids]
        (self.folder / "processes").write_text("\n".join(lines))


def _end(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def make_rows(options: Options) -> list[dict[str, Any]]:
    """The manifest: small requests, and among them those that cannot be rendered, which their id tells."""
    chance = random.Random(options.seed)
    rows: list[dict[str, Any]] = [{"id": f"good-{i}"} for i in range(options.rows)]
    for i in range(max(1, options.rows // 50)):
        rows.insert(chance.randrange(len(rows)), {"id": f"invalid-{i}", "num_frames": 6})
        rows.insert(chance.randrange(len(rows)), {"id": f"large-{i}", **LARGE})
    common = [{**SMALL, "prompt": f"a cat {i}", "seed": i} for i in range(len(rows))]
    return [
        few | {"steps": chance.choice((4, 6, 8, 40))} | row for few, row in zip(common, rows, strict=True)
    ]


def write_model(folder: Path) -> Path:
    """A tiny checkpoint with two experts that knows few positions."""
    from wanray.models.tiny import write_tiny

    write_tiny("t2v-a14b", folder)
    for name in ("transformer", "transformer_2"):
        settings = folder / name / "config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"rope_max_seq_len": 4}))
    return folder


def collect(endpoint: str, url: str, folder: Path) -> None:
    """`wanray gc`: a process killed after its commit leaves what only that removes."""
    command = [str(Path(sys.executable).with_name("wanray")), "gc", url]
    environment = os.environ | {"AWS_ENDPOINT_URL": endpoint}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    (folder / "gc").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise Broken(f"wanray gc ended with {done.returncode}: {done.stderr[-500:]}")


def unleash(options: Options, endpoint: str, bucket: str, folder: Path) -> Course:
    """The whole test against an S3 server; `folder` gets the logs.

    Raises:
        Broken: a promise does not hold.
    """
    begin_s, url = time.monotonic(), f"s3://{bucket}/chaos-{options.seed}-{time.time_ns():x}"
    rows = make_rows(options)
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, CREDENTIALS | ENVIRONMENT))
        proxy = stack.enter_context(proxy_before(endpoint, options.seed, options.error_rate))
        stack.enter_context(mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": proxy}))
        fleet = Fleet(options.seed)
        stack.callback(fleet.close)
        output = Output(endpoint, url)
        arguments = _arguments(options, folder, url, fleet.address)
        chaos = Chaos(options, arguments, fleet, output, proxy, folder)
        stack.callback(lambda: (chaos.driver.kill(), chaos.driver.wait()))
        chaos.run()
        before = check(output, rows)
        collect(endpoint, url, folder)
        problems = check(output, rows)
        course = chaos.course
        counts = faults(proxy)["counts"]
        course.facts = {
            "rows": f"{options.rows} good, {len(rows) - options.rows} bad",
            "kills": f"{course.kills.total()} ({words(course.kills)})",
            "exit codes of the driver": words(Counter(course.exits)),
            "S3 requests and faults": words(counts),
            "left to wanray gc": len(before) - len(problems),
            **facts_of(output, folder),
            "seconds": round(time.monotonic() - begin_s),
        }
    (folder / "facts").write_text(table(course))
    (folder / "problems").write_text("\n".join([*before, "", *problems]))
    if course.exits[-1] != 2:
        problems.append(f"the last driver ended with {course.exits[-1]}, not 2")
    if problems:
        raise Broken("; ".join(problems[:5]))
    return course


def _arguments(options: Options, folder: Path, url: str, address: str) -> list[str]:
    keys: dict[str, Any] = {"ray.address": address, "placement": "split", "output.url": url}
    for pool in DENOISE:
        keys |= {f"pools.{pool}.gangs": options.gangs, f"pools.{pool}.topology.cfg": 2}
        keys |= {f"pools.{pool}.labels.role": "render"}
    keys |= {"pools.decode.workers": options.gangs, "denoise.checkpoint_every_steps": 2}
    return write_config(folder, write_model(folder / "model"), folder / "manifest.parquet", **keys)


def table(course: Course) -> str:
    """What happened, a line each."""
    return "".join(f"{name:32} {value}\n" for name, value in course.facts.items())


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--error-rate", type=float, default=0.05)
    given = parser.parse_args()
    options = Options(**vars(given))
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{options.seed}-"))
    sys.stdout.write(f"seed {options.seed}, logs in {folder}\n")
    try:
        (folder / "weed").mkdir()
        with s3_server(folder / "weed") as endpoint:
            course = unleash(options, endpoint, "renders", folder)
    except Broken as broken:
        sys.stdout.write(f"BROKEN with seed {options.seed}: {broken}\nlogs are in {folder}\n")
        return 1
    sys.stdout.write(table(course))
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
