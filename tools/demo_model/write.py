"""Writes a checkpoint in Diffusers layout, weights in bfloat16."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

from tools.demo_model.text import make_tokenizer
from wanray.models.diffusers_folder import model_index
from wanray.registry import Model

SHIFT = 5.0


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
    index = model_index(model, {name: type(network) for name, network in parts.items()})
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
