"""The golden runs as manifest rows, and how tests render them."""

import json
import os
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
MEDIA = {
    "image": "image",
    "first_frame": "image",
    "last_frame": "last_image",
    "src_video": "video",
    "src_mask": "mask",
}
REFUSED = {("flf2v-14B", "other_size")}
"""The official code crops a last frame of another aspect to a wrong size; wanray refuses the row."""
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/checkpoint"))
RUNS = [
    (case, path.name)
    for case in CASES
    for path in sorted((GOLDEN / case / "runs").iterdir())
    if (case, path.name) not in REFUSED
]


def row_of(case, run):
    """The manifest row that says what `inputs.json` says."""
    folder = GOLDEN / case / "runs" / run
    inputs = json.loads((folder / "inputs.json").read_text())
    names = {"prompt": "prompt", "negative_prompt": "negative_prompt", "frame_num": "num_frames"}
    names |= {"sampling_steps": "steps", "shift": "shift", "sample_solver": "solver", "seed": "seed"}
    names |= {"max_area": "max_area", "context_scale": "context_scale"}
    row = {column: inputs[name] for name, column in names.items() if name in inputs}
    low, high = (
        (inputs["guide_scale"],) * 2 if isinstance(inputs["guide_scale"], float) else inputs["guide_scale"]
    )
    row |= {"id": run, "guidance": {"high": high, "low": low}}
    row |= {column: str(folder / inputs[name]) for name, column in MEDIA.items() if inputs.get(name)}
    if inputs.get("src_ref_images"):
        row["reference_images"] = [str(folder / name) for name in inputs["src_ref_images"]]
    if "size" in inputs:
        row["width"], row["height"] = inputs["size"]
    return row


def render_rows(rows, checkpoint, folder, dtype="float32"):
    """`wanray render` of the rows with latents and PNG files below `folder/out`; (exit code, its output)."""
    folder.mkdir(exist_ok=True)
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "manifest": str(folder / "manifest.jsonl"),
        "model": {"path": str(checkpoint)},
        "output": {"url": str(folder / "out"), "save_latents": True, "video": {"format": "png"}},
        "engine": "local",
        "numerics": {"dtype": dtype},
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    command = [str(Path(sys.executable).with_name("wanray")), "render", str(folder / "config.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr
