"""Writes a checkpoint in Diffusers layout, weights in bfloat16."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from diffusers import UniPCMultistepScheduler
from PIL import Image
from pyarrow import parquet

from tools.demo_model.clips import HELD_OUT
from tools.demo_model.scenes import Scene, draw
from tools.demo_model.text import make_tokenizer
from wanray.models.diffusers_folder import model_index
from wanray.registry import Model

SHIFT = 5.0
IMAGES = (
    (Scene("red", "circle", "right", "green"), 64),
    (Scene("yellow", "triangle", "left", "white"), 64),
    (Scene("blue", "square", "down", "gray"), 64),
    (Scene("white", "triangle", "up", "green"), 96),
)
"""What the manifest of `configs/demo-images.yaml` shows, and how wide; held out from training."""


def write_checkpoint(
    model: Model, folder: Path, vae: Any, text_encoder: Any, transformers: list[Any]
) -> None:
    """transformers: one for each of the model's experts, in the order in which they work."""
    make_tokenizer().save_pretrained(folder / "tokenizer")
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
    scheduler.save_pretrained(folder / "scheduler")
    parts = {"text_encoder": text_encoder, "vae": vae, "transformer": transformers[0]}
    parts |= {"transformer_2": transformers[1]} if len(transformers) == 2 else {}
    for name, network in parts.items():
        network.to("cpu", torch.bfloat16).save_pretrained(folder / name)
        _forget_origin(folder / name / "config.json")
    index = model_index(model, {name: type(network) for name, network in parts.items()})
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _forget_origin(file: Path) -> None:
    """Diffusers notes the folder from which a network was loaded."""
    config = json.loads(file.read_text())
    config.pop("_name_or_path", None)
    file.write_text(json.dumps(config, indent=2) + "\n")


def write_images(file: Path) -> None:
    """A manifest of first frames, inside its rows, with prompts that tell how they go on."""
    assert all(scene in HELD_OUT for scene, _ in IMAGES)
    rows = {
        "prompt": [scene.prompt for scene, _ in IMAGES],
        "image": [{"bytes": _png(*each)} for each in IMAGES],
    }
    rows |= {"width": [width for _, width in IMAGES], "height": [64] * len(IMAGES)}
    parquet.write_table(pa.table(rows), file)


def _png(scene: Scene, width: int) -> bytes:
    frames_FHWC = draw(scene, width, 64, 9, np.random.default_rng(6))
    file = io.BytesIO()
    Image.fromarray((frames_FHWC[0] * 255).round().astype(np.uint8)).save(file, format="png")
    return file.getvalue()
