"""(i) A guided step of a full-size A14B expert with random weights on one GPU, by attention kernel."""

import multiprocessing
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from statistics import median
from typing import Any

from wanray.config import ATTENTIONS, TopologyConfig
from wanray.errors import ConfigError
from wanray.plan.flops import forward_tflop, num_tokens
from wanray.registry import Dims, Model, get_model
from wanray.stage import Worker

MODEL = get_model("t2v-a14b")
SIZES = {"480p81": (832, 480, 81), "720p81": (1280, 720, 81)}
STEPS = 3
"""That are timed, after one that is not."""
TEXT_DIM, TEXT_TOKENS = 4096, 512
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "B200": 2250.0}
"""Dense bfloat16, as the makers say, by a word in the GPU's name; MFU is against these."""
Row = dict[str, float | str]


def run() -> list[Row]:
    """Eager and compiled, with each kernel that this GPU has, each in a process of its own.

    Raises:
        SystemExit: there is no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("expert_step measures a GPU, and torch finds none here")
    return [
        row
        for attention in ATTENTIONS
        for compiled in (False, True)
        for row in in_process(attention, compiled, "cuda", MODEL.dims, SIZES)
    ]


def in_process(
    attention: str, compiled: bool, device: str, dims: Dims, sizes: dict[str, tuple[int, int, int]]
) -> list[Row]:
    """The rows of one kernel; xDiT has one for the life of a process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (attention, compiled, device, dims, sizes))


def measure(
    attention: str, compiled: bool, device: str, dims: Dims, sizes: dict[str, tuple[int, int, int]]
) -> list[Row]:
    """A row per size; one that says why, where the kernel does not work here."""
    import torch

    from wanray.models.ranks import Gang

    way = {"attention": attention, "mode": "compiled" if compiled else "eager"}
    try:
        ranks = Gang(Worker(device=device), TopologyConfig(), attention, torch.bfloat16, None)
    except ConfigError:
        return [
            way | {"size": "does not work here"} | dict.fromkeys(FIGURES, float("nan")) | versions(device)
        ]
    with torch.inference_mode():
        transformer = random_expert(dims, device)
        if compiled:
            for block in transformer.blocks:
                block.compile()
        rows = [
            way | {"size": name} | figures(transformer, ranks.pair, size, dims, device) | versions(device)
            for name, size in sizes.items()
        ]
    ranks.leave()
    return rows


def random_expert(dims: Dims, device: str) -> Any:
    """xDiT's transformer with weights in bfloat16 and the official islands in float32."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel

    from wanray.models import xdit
    from wanray.models.islands import add_float32_islands

    with init_empty_weights(include_buffers=False):
        network = WanTransformer3DModel(
            num_attention_heads=dims.num_heads,
            attention_head_dim=dims.dim // dims.num_heads,
            in_channels=dims.in_channels,
            out_channels=dims.in_channels,
            text_dim=TEXT_DIM,
            ffn_dim=dims.ffn_dim,
            num_layers=dims.num_layers,
        )
    transformer = xdit.shared(network.bfloat16())
    for module in transformer.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            values = torch.empty(empty.shape, dtype=empty.dtype, device=device).normal_(std=0.02)
            module.register_parameter(name, torch.nn.Parameter(values, requires_grad=False))
    transformer.to(device).eval()
    add_float32_islands(transformer)
    return transformer


FIGURES = ("s/step", "TFLOP/s", "MFU", "peak GiB")


def figures(transformer: Any, pair: Any, size: tuple[int, int, int], dims: Dims, device: str) -> Row:
    """Of the denoise loop's own step: two forwards, guidance and solver."""
    import torch

    step_s = median(steps_of(transformer, pair, latents_of(size, MODEL), device))
    tflop = 2 * forward_tflop(num_tokens(*size, MODEL), dims)
    peak_gib = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    peak_tflops = next((peak for name, peak in PEAK_TFLOPS.items() if name in gpu(device)), float("nan"))
    return dict(zip(FIGURES, (step_s, tflop / step_s, tflop / step_s / peak_tflops, peak_gib), strict=True))


def steps_of(transformer: Any, pair: Any, shape: tuple[int, ...], device: str) -> Iterator[float]:
    """Seconds of each step but the first, for latents of this shape [B, C, T, H, W]."""
    import torch

    from wanray.models.denoise import TextCondition, advance
    from wanray.models.solver import make_solver
    from wanray.models.state import DenoiseState
    from wanray.models.steering import Steering

    ends_s: list[float] = []

    def told(_: DenoiseState) -> bool:
        if device == "cuda":
            torch.cuda.synchronize()
        ends_s.append(time.monotonic())
        return False

    state = DenoiseState(torch.randn(shape, device=device))
    texts = torch.randn(2, 1, TEXT_TOKENS, TEXT_DIM, dtype=torch.bfloat16, device=device)
    solver = make_solver("unipc", STEPS + 1, 12.0, "official", {}, device)
    advance(
        transformer, state, solver, TextCondition(*texts), Steering(), 4.0, STEPS + 1, "official", told, pair
    )
    return (after - before for before, after in pairwise(ends_s))


def latents_of(size: tuple[int, int, int], model: Model) -> tuple[int, ...]:
    """The shape [B, C, T, H, W] of a video's latents."""
    width, height, num_frames = size
    frames = (num_frames - 1) // model.temporal_stride + 1
    stride = model.spatial_stride
    return 1, model.latent_channels, frames, height // stride, width // stride


def gpu(device: str) -> str:
    """Its name."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def versions(device: str) -> Row:
    """What the figures depend on."""
    import torch

    packages = ", ".join(f"{name} {version(name)}" for name in ("diffusers", "xfuser"))
    return {"on": f"{gpu(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}, {packages}"}
