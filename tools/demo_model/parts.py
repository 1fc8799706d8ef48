"""The parts of the training and what each builds on; one that is finished is read, not trained again."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from tools.demo_model.denoiser import Lesson, train_denoiser
from tools.demo_model.latents import encode_clips
from tools.demo_model.loop import finished
from tools.demo_model.networks import make_transformer
from tools.demo_model.probe import Probe
from tools.demo_model.text import attend_to_short_texts, embed, make_text_encoder, make_tokenizer
from tools.demo_model.vae import train_vae
from tools.demo_model.write import write_checkpoint, write_images
from wanray.registry import Model, get_model

ONE, TWO = get_model("ti2v-5b"), get_model("t2v-a14b")
"""With one expert, for text and images; with two, for text."""
EXPERTS = ("high", "low")
STEPS = {"ti2v": 8000, "t2v": 3500, "high": 800, "low": 1200}
STARTS = {"t2v": "ti2v", "high": "t2v", "low": "t2v"}
"""With whose weights a training begins; what has another shape, around the latents, begins anew."""
BATCH_TOKENS = {"ti2v-5b": 480, "t2v-a14b": 960}
"""Of 40 and of 20 of the smallest clips."""


@dataclass
class Workshop:
    """Where trainings are kept, where checkpoints go, what computes."""

    work: Path
    out: Path
    device: str
    given: Path | None = None
    """Checkpoints whose VAEs, and whose transformer `ti2v`, are taken as they are."""

    def vae(self, model: Model) -> AutoencoderKLWan:
        """Trained."""
        folder = self.given / model.name / "vae" if self.given else self.work / f"vae-{model.name}"
        if not (folder / "config.json").exists():
            train_vae(model, self.work / f"vae-{model.name}.pt", self.device).save_pretrained(folder)
        vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32)
        return vae.to(self.device)  # pyright: ignore[reportArgumentType]

    def denoiser(self, name: str) -> Any:
        """A module with a trained `transformer`, and but for experts the `text_encoder` trained with it."""
        file, model = self.work / f"{name}.pt", ONE if name == "ti2v" else TWO
        network = torch.nn.ModuleDict({"transformer": make_transformer(model)})
        if name not in EXPERTS:
            network["text_encoder"] = make_text_encoder()
        if name == "ti2v" and self.given:
            return _read(network, self.given / model.name)
        if (weights := finished(file, STEPS[name])) is not None:
            network.load_state_dict(weights)
            return network
        if name in STARTS:
            _begin_with(network, self.denoiser(STARTS[name]).state_dict())
        return self._train(name, network.to(self.device), model, file)

    def _train(self, name: str, network: Any, model: Model, file: Path) -> Any:
        attend_to_short_texts(network["transformer"])
        tokenizer, vae = make_tokenizer(), self.vae(model)
        texts = self.denoiser("t2v").to(self.device).requires_grad_(False) if name in EXPERTS else None
        other = copy.deepcopy(network["transformer"])  # what the other expert is until it is trained

        def embed_with(network: Any, prompts: list[str]) -> torch.Tensor:
            return embed(tokenizer, (texts or network)["text_encoder"], prompts)

        probe = Probe(model, copy.deepcopy(vae), other, _noise_range(name), file.with_suffix(".png"))
        lesson = Lesson(
            model=model,
            latents=encode_clips(vae, self.work / f"latents-{model.name}.pt", self.device),
            embed=partial(embed_with, network),
            batch_tokens=BATCH_TOKENS[model.name],
            noise_range=_noise_range(name),
        )
        return train_denoiser(
            network,
            lesson,
            file,
            STEPS[name],
            lambda averaged: probe(averaged["transformer"], partial(embed_with, averaged)),
            self.device,
        )


def _read(network: Any, checkpoint: Path) -> Any:
    for name, module in network.items():
        trained = type(module).from_pretrained(checkpoint / name, torch_dtype=torch.float32)
        module.load_state_dict(trained.state_dict())
    return network


def _begin_with(network: Any, weights: dict[str, torch.Tensor]) -> None:
    own = network.state_dict()
    same = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(own | same)


def _write(model: Model, workshop: Workshop) -> None:
    names, base = (EXPERTS, "t2v") if model is TWO else (("ti2v",), "ti2v")
    transformers = [workshop.denoiser(name)["transformer"] for name in names]
    text_encoder = workshop.denoiser(base)["text_encoder"]
    write_checkpoint(model, workshop.out / model.name, workshop.vae(model), text_encoder, transformers)


PARTS: dict[str, Callable[[Workshop], object]] = {
    "vae-ti2v-5b": lambda workshop: workshop.vae(ONE),
    "vae-t2v-a14b": lambda workshop: workshop.vae(TWO),
    "ti2v": lambda workshop: workshop.denoiser("ti2v"),
    "t2v": lambda workshop: workshop.denoiser("t2v"),
    "high": lambda workshop: workshop.denoiser("high"),
    "low": lambda workshop: workshop.denoiser("low"),
    "images": lambda _: write_images(Path("manifests/demo-images.parquet")),
    "write-ti2v-5b": partial(_write, ONE),
    "write-t2v-a14b": partial(_write, TWO),
}


def _noise_range(name: str) -> tuple[float, float]:
    boundary = TWO.boundary
    assert boundary is not None
    return {"high": (boundary, 1.0), "low": (0.0, boundary)}.get(name, (0.0, 1.0))
