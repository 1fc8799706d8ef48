"""Tiny random checkpoints in Diffusers layout: real networks of a few hundred kilobytes, to try things."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from wanray.errors import ConfigError
from wanray.registry import Model, get_model

WORDS = """
a an and at beach bird black blue bright camera cat circle city dark day dog down fast field fire fish forest
from green horse in into left light low morning mountain moving night of on over person quality rain red right
river road rolling running sea ship sky slowly snow square star static street sun the through to train tree
triangle turning under up video walking water white wind with yellow
"""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'"
TEXT_DIM = 32


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
    _text_encoder().save_pretrained(folder / "text_encoder")
    for number, part in enumerate(["transformer", "transformer_2"][: len(model.experts)]):
        _transformer(seed=3 + number).save_pretrained(folder / part)
    _vae().save_pretrained(folder / "vae")
    _scheduler(model).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_index(model), indent=2) + "\n")


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


def _vae() -> AutoencoderKLWan:
    torch.manual_seed(2)
    stages = {"dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    return AutoencoderKLWan(base_dim=4, z_dim=16, **stages).eval()


def _transformer(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_DIM,
        freq_dim=64,
        ffn_dim=64,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    )
    return transformer.eval()


def _scheduler(model: Model) -> UniPCMultistepScheduler:
    shift = model.defaults.shift
    assert shift is not None
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def _index(model: Model) -> dict[str, object]:
    index: dict[str, object] = {
        "_class_name": "WanPipeline",
        "boundary_ratio": model.boundary,
        "expand_timesteps": False,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"] if model.boundary else [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    return index
