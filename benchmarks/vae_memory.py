"""(d) Peak memory of decoding longer and longer clips: frame group by frame group, and all at once.

The tiny random VAE at 96x96, each case in a process of its own; `decode_gib` is what decoding adds to the
process with its libraries and the VAE. glibc is told to give back each large block when it is freed: else
the heap's holes, which stop growing at about three times the streamed figures, hide what is held.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LATENT_FRAMES = (21, 81, 161)
LATENT_SIZE = 12
TASK = "from benchmarks.vae_memory import decode_here; import sys; decode_here(*sys.argv[1:])"


def run() -> list[dict[str, float | str]]:
    """Seconds and peak memory of `wanray.models.vae.decode_stream` and of diffusers' `decode`."""
    results: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        subprocess.run(
            [Path(sys.executable).with_name("wanray"), "tiny", "t2v-1.3b", model],
            check=True,
            capture_output=True,
        )
        for case in ("streamed", "whole"):
            for frames in LATENT_FRAMES:
                row = {"case": case, "latent_frames": frames, "frames": 4 * frames - 3}
                results.append(row | in_process(model, case, frames))
    return results


def in_process(model: Path, case: str, latent_frames: int) -> dict[str, float]:
    """Decode one clip in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", TASK, str(model), case, str(latent_frames)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def decode_here(model: str, case: str, latent_frames: str) -> None:
    """Runs in the measured process; frames are dropped as soon as they are there."""
    import torch
    from diffusers import AutoencoderKLWan

    from wanray.models.vae import decode_stream

    vae = AutoencoderKLWan.from_pretrained(model, subfolder="vae").eval()
    shape = (1, vae.config["z_dim"], int(latent_frames), LATENT_SIZE, LATENT_SIZE)
    latents_BCTHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))  # noqa: N806
    start, before_gib = time.monotonic(), peak_gib()
    if case == "streamed":
        num_frames = sum(len(frames_FCHW) for frames_FCHW in decode_stream(vae, latents_BCTHW))
    else:
        with torch.inference_mode():
            num_frames = vae.decode(latents_BCTHW, return_dict=False)[0].shape[2]
    assert num_frames == 4 * int(latent_frames) - 3, f"{num_frames} frames of {latent_frames} latent frames"
    seconds, peak = time.monotonic() - start, peak_gib()
    print(json.dumps({"seconds": seconds, "peak_rss_gib": peak, "decode_gib": peak - before_gib}))


def peak_gib() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
