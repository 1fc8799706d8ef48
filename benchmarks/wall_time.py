"""(b) A small manifest through `wanray render engine=local`, against plain diffusers, in one process or many.

All three are whole processes, timed from start to end, one after the other on the same machine. They write
the same thing, 32 mp4 files through the same encoder. A process per prompt is measured on fewer rows and
scaled, which favours it.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 32
ROWS_OF_PROCESS_EACH = 4
SHAPE = {"width": 96, "height": 96, "num_frames": 9, "steps": 8}

PLAIN = """
import sys
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from wanray.config import VideoConfig
from wanray.sinks.video import encode_frames
model, out, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
vae = AutoencoderKLWan.from_pretrained(model, subfolder="vae", dtype=torch.float32)
pipeline = WanPipeline.from_pretrained(model, vae=vae, dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
for row in range(first, last):
    generator = torch.Generator("cpu").manual_seed(row)
    frames = pipeline(prompt=f"a cat {row}", negative_prompt="dark", width=%(width)d, height=%(height)d,
        num_frames=%(num_frames)d, num_inference_steps=%(steps)d, guidance_scale=5.0, generator=generator,
        max_sequence_length=512).frames[0]
    with open(f"{out}/{row}.mp4", "wb") as file:
        (video,) = encode_frames((frames * 255).astype("uint8"), 16.0, VideoConfig(), {}).files.values()
        file.write(video)
"""


def run() -> list[dict[str, float | str]]:
    """Seconds of the three ways and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        wanray_s = timed(wanray_command(folder))
        loop_s = timed(plain_command(folder, 0, ROWS))
        each_s = sum(timed(plain_command(folder, row, row + 1)) for row in range(ROWS_OF_PROCESS_EACH))
        assert (
            len(list(folder.glob("out/clips/*/*/meta.json")))
            == len(list((folder / "plain").iterdir()))
            == ROWS
        )
    per_row_s = each_s / ROWS_OF_PROCESS_EACH
    return [
        {"way": "wanray engine=local", "seconds": wanray_s, "wanray_share": 1.0},
        {"way": "diffusers, one loop", "seconds": loop_s, "wanray_share": wanray_s / loop_s},
        {
            "way": "diffusers, a process each",
            "seconds": per_row_s * ROWS,
            "wanray_share": wanray_s / (per_row_s * ROWS),
        },
    ]


def prepare(folder: Path) -> None:
    """A tiny checkpoint and a manifest."""
    subprocess.run([wanray(), "tiny", "t2v-1.3b", folder / "model"], check=True, capture_output=True)
    rows = [
        {"prompt": f"a cat {row}", "negative_prompt": "dark", "seed": row, **SHAPE} for row in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    (folder / "plain").mkdir()
    (folder / "config.yaml").write_text(
        f"manifest: {folder}/manifest.parquet\nengine: local\nmodel: {{path: {folder}/model}}\n"
        f"output: {{url: {folder}/out}}\nnumerics: {{mode: diffusers, dtype: float32}}\n"
    )


def wanray() -> str:
    """The command beside this interpreter."""
    return str(Path(sys.executable).with_name("wanray"))


def wanray_command(folder: Path) -> list[str]:
    """Render the manifest."""
    return [wanray(), "render", str(folder / "config.yaml")]


def plain_command(folder: Path, first: int, last: int) -> list[str]:
    """Render the rows `first .. last` with nothing but diffusers."""
    return [
        sys.executable,
        "-c",
        PLAIN % SHAPE,
        str(folder / "model"),
        str(folder / "plain"),
        str(first),
        str(last),
    ]


def timed(command: list[str]) -> float:
    """Wall seconds of a whole process."""
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start
