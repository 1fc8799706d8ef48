"""Tiny random checkpoints in Diffusers layout: real networks of a few hundred kilobytes, to try things."""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.utils import logging as transformers_logging

from wanray.errors import ConfigError
from wanray.models.diffusers_folder import model_index
from wanray.registry import Model, get_model

WORDS = """
a an and at beach bird black blue bright camera cat circle city dark day dog down fast field fire fish forest
from green horse in into left light low morning mountain moving night of on over person quality rain red right
river road rolling running sea ship sky slowly snow square star static street sun the through to train tree
triangle turning under up video walking water white wind with yellow
"""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'"
TEXT_DIM = 32
IMAGE_DIM = 16
IMAGE_PATCH_PX = 32
NUM_IMAGE_TOKENS = (224 // IMAGE_PATCH_PX) ** 2 + 1
INNER_DIM = 48

T = TypeVar("T", bound=torch.nn.Module)


def write_tiny(name: str, folder: str | Path) -> None:
    """Write a random checkpoint of the registry's model `name`; the same bytes every time.

    Raises:
        ConfigError: unknown model, or `folder` holds something that is not a checkpoint.
    """
    model, folder = get_model(name), Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "model_index.json").exists():
        raise ConfigError(f"{folder} is not empty and no checkpoint: name a new folder")
    transformers_logging.disable_progress_bar()
    _tokenizer().save_pretrained(folder / "tokenizer")
    _scheduler(model).save_pretrained(folder / "scheduler")
    networks = {"text_encoder": _text_encoder(), "vae": _vae(model)}
    for number, part in enumerate(["transformer", "transformer_2"][: len(model.experts)]):
        networks[part] = _transformer(model, seed=3 + number)
    if model.has_image_encoder:
        networks["image_encoder"] = _image_encoder()
        CLIPImageProcessorPil().save_pretrained(folder / "image_processor")
    for part, network in networks.items():
        network.save_pretrained(folder / part)
    index = model_index(model, {part: type(network) for part, network in networks.items()})
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _tokenizer() -> T5Tokenizer:
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"\u2581{word}", -2.0) for word in sorted(WORDS.split())]
    vocabulary += [("\u2581", -4.0)] + [(letter, -6.0) for letter in LETTERS]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def _text_encoder() -> UMT5EncoderModel:
    torch.manual_seed(1)
    config = UMT5Config(
        vocab_size=4 + len(WORDS.split()) + len(LETTERS),
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config).eval()


def _image_encoder() -> CLIPVisionModel:
    torch.manual_seed(5)
    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM,
        intermediate_size=32,
        projection_dim=IMAGE_DIM,
        num_hidden_layers=3,
        num_attention_heads=2,
        patch_size=IMAGE_PATCH_PX,
        hidden_act="gelu",
    )
    return _vary_constants(CLIPVisionModel(config))


def _vae(model: Model) -> AutoencoderKLWan:
    torch.manual_seed(2)
    stages: dict[str, Any] = {
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }
    if model.vae == "wan2.1":
        return AutoencoderKLWan(base_dim=4, z_dim=16, **stages).eval()
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=6,
        z_dim=model.latent_channels,
        latents_mean=_round(torch.randn(model.latent_channels) / 4),
        latents_std=_round(torch.rand(model.latent_channels) + 0.5),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=model.spatial_stride,
        **stages,
    )
    return _vary_constants(vae)


def _round(values: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _transformer(model: Model, seed: int) -> WanTransformer3DModel | WanVACETransformer3DModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 4,
        "attention_head_dim": INNER_DIM // 4,
        "in_channels": model.dims.in_channels,
        "out_channels": model.latent_channels,
        "text_dim": TEXT_DIM,
        "freq_dim": 64,
        "ffn_dim": 64,
        "num_layers": 2,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
    }
    if model.dims.num_vace_blocks:
        sizes |= {"num_layers": 3, "vace_layers": [0, 2], "vace_in_channels": 96}
        return _vary_constants(WanVACETransformer3DModel(**sizes))
    if model.has_image_encoder:
        sizes |= {"image_dim": IMAGE_DIM, "added_kv_proj_dim": INNER_DIM}
    if "flf2v" in model.tasks and model.has_image_encoder:
        sizes["pos_embed_seq_len"] = 2 * NUM_IMAGE_TOKENS
    transformer = WanTransformer3DModel(**sizes).eval()
    return _vary_constants(transformer) if model.inputs else transformer


def _vary_constants(network: T) -> T:
    """Random values where initialisation has all zeros or all ones, so that each parameter tells."""
    for parameter in network.parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def _scheduler(model: Model) -> UniPCMultistepScheduler:
    shift = model.defaults.shift
    assert shift is not None
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
