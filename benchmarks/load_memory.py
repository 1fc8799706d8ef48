"""(d) Memory of loading one network, each in a process of its own, against its weight files: GiB."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wanray.checkpoint import Component

GIB = 2**30
TASK = "from benchmarks.load_memory import load_here; import sys; load_here(*sys.argv[1:])"
DIM, FFN_DIM, LAYERS = 1536, 8960, 6
"""Transformer: the 1.3B model with a fifth of its layers."""
TEXT_DIM, TEXT_FFN_DIM, TEXT_LAYERS, VOCABULARY = 1024, 2816, 12, 128_000


def run() -> list[dict[str, float | str]]:
    """Load random networks of some hundred megabytes, in both layouts and dtypes."""
    with tempfile.TemporaryDirectory() as name:
        components = [write(Path(name)) for write in (_transformer, _text_encoder, _vae, _image_encoder)]
        components.append(_converted(Path(name), components[0]))
        return [measure(component, dtype) for component in components for dtype in ("float32", "bfloat16")]


def measure(component: Component, dtype: str) -> dict[str, float | str]:
    """One row: what a fresh process needs at most, above what its imports need.

    `private_gib` is what it has allocated; `mapped_gib` are pages of the weight files, which the kernel takes
    back when others need memory, and which all workers of a node share; `peak_gib` is the most of both.
    """
    command = [sys.executable, "-c", TASK, json.dumps(asdict(component)), dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    size = sum(Path(file).stat().st_size for file in component.files) / GIB
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert numbers["private_gib"] < 1.05 * numbers["network_gib"], (
        f"{component.path} is copied twice: {numbers}"
    )
    assert numbers["mapped_gib"] < 1.05 * size, f"{component.path} is read twice: {numbers}"
    return {"role": component.role, "layout": component.layout, "dtype": dtype, "file_gib": size, **numbers}


def load_here(component: str, dtype: str) -> None:
    """Runs in the measured process: loads, then reads every parameter once, as computing would."""
    import torch

    from wanray.models.load import load_network

    before = memory()
    with Peak() as peak:
        described = json.loads(component)
        network = load_network(
            Component(**described | {"files": tuple(described["files"])}), getattr(torch, dtype), "cpu"
        )
        parameters = list(network.parameters())
        for parameter in parameters:
            parameter.sum()
    size = sum(parameter.numel() * parameter.itemsize for parameter in parameters)
    print(
        json.dumps(
            {
                "network_gib": size / GIB,
                "private_gib": (peak.highest["RssAnon"] - before["RssAnon"]) / GIB,
                "mapped_gib": (peak.highest["RssFile"] - before["RssFile"]) / GIB,
                "peak_gib": (memory()["VmHWM"] - before["VmRSS"]) / GIB,
            }
        )
    )


def memory() -> dict[str, int]:
    """Of this process in bytes: resident in all (now, at most), private, and mapped from files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    wanted = ("VmHWM", "VmRSS", "RssAnon", "RssFile")
    return {line[0][:-1]: int(line[1]) * 1024 for line in lines if line and line[0][:-1] in wanted}


class Peak:
    """The highest values of `memory` while a block runs, looked at every two milliseconds."""

    def __init__(self) -> None:
        self.highest = memory()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.highest = {name: max(value, self.highest[name]) for name, value in memory().items()}

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _transformer(folder: Path) -> Component:
    """Official t2v weights in float32, as released."""
    from safetensors.torch import save_file

    file = folder / "diffusion_pytorch_model.safetensors"
    save_file(_random(transformer_shapes()), file)
    return Component(role="transformer", layout="official", path=str(file), files=(str(file),))


def transformer_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (DIM, 16, 1, 2, 2),
        "patch_embedding.bias": (DIM,),
    }
    linear = _linear(shapes)
    for name, inputs, outputs in (
        ("text_embedding.0", 4096, DIM),
        ("text_embedding.2", DIM, DIM),
        ("time_embedding.0", 256, DIM),
        ("time_embedding.2", DIM, DIM),
        ("time_projection.1", DIM, 6 * DIM),
        ("head.head", DIM, 64),
    ):
        linear(name, inputs, outputs)
    shapes["head.modulation"] = (1, 2, DIM)
    for block in (f"blocks.{number}" for number in range(LAYERS)):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"{block}.{attention}.{part}", DIM, DIM)
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (DIM,) for part in "qk"}
        shapes |= {f"{block}.norm3.{part}": (DIM,) for part in ("weight", "bias")}
        shapes[f"{block}.modulation"] = (1, 6, DIM)
        linear(f"{block}.ffn.0", DIM, FFN_DIM)
        linear(f"{block}.ffn.2", FFN_DIM, DIM)
    return shapes


def _linear(shapes: dict[str, tuple[int, ...]]) -> Callable[[str, int, int], None]:
    def add(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    return add


def _text_encoder(folder: Path) -> Component:
    """Official UMT5 weights: bfloat16, written by `torch.save`."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (VOCABULARY, TEXT_DIM),
        "norm.weight": (TEXT_DIM,),
    }
    for block in (f"blocks.{number}" for number in range(TEXT_LAYERS)):
        shapes |= {f"{block}.attn.{part}.weight": (TEXT_DIM, TEXT_DIM) for part in "qkvo"}
        shapes |= {f"{block}.norm{number}.weight": (TEXT_DIM,) for number in (1, 2)}
        shapes |= {f"{block}.{part}.weight": (TEXT_FFN_DIM, TEXT_DIM) for part in ("ffn.gate.0", "ffn.fc1")}
        shapes |= {f"{block}.ffn.fc2.weight": (TEXT_DIM, TEXT_FFN_DIM)}
        shapes |= {f"{block}.pos_embedding.embedding.weight": (32, 16)}
    file = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save({name: tensor.bfloat16() for name, tensor in _random(shapes).items()}, file)
    return Component(role="text_encoder", layout="official", path=str(file), files=(str(file),))


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    import torch

    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _vae(folder: Path) -> Component:
    from diffusers import AutoencoderKLWan

    return _saved(AutoencoderKLWan(), folder / "vae", "vae")


def _image_encoder(folder: Path) -> Component:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes: dict[str, Any] = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    return _saved(
        CLIPVisionModel(CLIPVisionConfig(**sizes, num_hidden_layers=8)), folder / "clip", "image_encoder"
    )


def _converted(folder: Path, component: Component) -> Component:
    """The same transformer in Diffusers layout."""
    import torch

    from wanray.models.load import load_network

    return _saved(load_network(component, torch.bfloat16, "cpu"), folder / "converted", "transformer")


def _saved(network: Any, folder: Path, role: str) -> Component:
    network.save_pretrained(folder)
    files = tuple(str(file) for file in sorted(folder.glob("*.safetensors")))
    config = json.loads((folder / "config.json").read_text())
    return Component(role=role, layout="diffusers", path=str(folder), files=files, config=config)
