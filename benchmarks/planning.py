"""(c) Planning and resuming large manifests: seconds and peak memory of a process of its own."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wanray.config import load_config

SIZES = (10_000, 100_000, 1_000_000)
TASK = "from benchmarks.planning import plan_here; import sys; plan_here(*sys.argv[1:])"


def run() -> list[dict[str, float | str]]:
    """Plan each size, then resume it with every request committed (with and without the index)."""
    results: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [Path(sys.executable).with_name("wanray"), "tiny", "t2v-a14b", folder / "model"],
            check=True,
            capture_output=True,
        )
        for rows in SIZES:
            results += measure(folder / str(rows), folder / "model", rows)
    return results


def measure(folder: Path, model: Path, rows: int) -> list[dict[str, float | str]]:
    """The three cases of one size."""
    folder.mkdir()
    write_manifest(folder / "manifest.parquet", rows)
    (folder / "config.yaml").write_text(
        f"manifest: {folder}/manifest.parquet\nmodel: {{path: {model}}}\noutput: {{url: {folder}/out}}\n"
    )
    planned = in_process(folder, "write")
    assert planned["left"] == rows, f"{planned['left']} of {rows} left before anything was rendered"
    commit_all(folder)
    index = in_process(folder, "read")
    for path in (folder / "out" / "index").iterdir():
        path.unlink()
    listing = in_process(folder, "read")
    assert index["left"] == listing["left"] == 0, "resume did not find what is committed"
    cases = {"plan": planned, "resume, with index": index, "resume, without index": listing}
    return [
        {"rows": rows, "case": case, "seconds": r["seconds"], "peak_rss_gib": r["rss_gib"]}
        for case, r in cases.items()
    ]


def write_manifest(path: Path, rows: int) -> None:
    """Prompts that all differ, in row groups as a data pipeline would write them."""
    numbers = range(rows)
    prompts = [f"a cat on a wall, take {row}, morning light, slow camera" for row in numbers]
    table = pa.table({"id": [f"clip-{row}" for row in numbers], "prompt": prompts, "seed": list(numbers)})
    pq.write_table(table, path, row_group_size=50_000)


def in_process(folder: Path, mode: str) -> dict[str, float]:
    """Prepare the job in a fresh process; `write` stores the plan files, as `wanray render` does."""
    done = subprocess.run(
        [sys.executable, "-c", TASK, str(folder), mode], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def plan_here(folder: str, mode: str) -> None:
    """Runs in the measured process: imports count, the start of Python does not."""
    start = time.monotonic()
    from wanray.engine.prepare import prepare

    job = prepare(load_config(Path(folder) / "config.yaml"), write=mode == "write")
    rss_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": time.monotonic() - start, "rss_gib": rss_gib, "left": job.plan.counts.left}))


def commit_all(folder: Path) -> None:
    """Lay out an output in which every planned key is committed: a meta.json each, and an index."""
    from wanray.sinks.index import INDEX_SCHEMA

    out = folder / "out"
    (out / "index").mkdir()
    for number, part in enumerate(sorted(out.glob("runs/*/plan/*.parquet"))):
        keys = pq.read_table(part, columns=["key"])["key"].to_pylist()
        for key in keys:
            clip = out / "clips" / key[:2] / key
            clip.mkdir(parents=True)
            (clip / "meta.json").write_text("{}")
        rows = pa.Table.from_pylist([{"key": key} for key in keys], schema=INDEX_SCHEMA)
        pq.write_table(rows, out / "index" / f"{number:06d}.parquet")
