"""What only the networks can tell of a checkpoint: do the tensors fit, does it load, does it read text.

`wanray convert` asks before it writes, `wanray doctor` asks to report.
"""

import time

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from wanray.checkpoint import Component
from wanray.models.load import empty_network, iter_tensors, load_network

SENTENCES = ("a cat walks in the rain", "two red birds over the sea at night")


def misfits(component: Component) -> list[str]:
    """Which tensors are missing, of another shape, or have no place; reads none of their data.

    Such as `lacks proj_out.bias and 1 more`.
    """
    empty = empty_network(component)
    tied = set(getattr(empty, "_tied_weights_keys", None) or ())
    expected = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in iter_tensors(component)}
    shared = expected.keys() & found.keys()
    kinds = {
        "lacks": expected.keys() - found.keys() - tied,
        "has without a place in the network": found.keys() - expected.keys(),
        "has in another shape": {name for name in shared if found[name] != expected[name]},
    }
    return [f"{verb} {_some(sorted(names))}" for verb, names in kinds.items() if names]


def load_seconds(component: Component) -> float:
    """How long loading takes here, in the dtype that rendering uses.

    Raises:
        ConfigError: it does not load.
    """
    transformers_logging.disable_progress_bar()
    start = time.monotonic()
    is_wide = component.role in ("vae", "image_encoder")
    load_network(component, torch.float32 if is_wide else torch.bfloat16, "cpu")
    return time.monotonic() - start


def tokenizer_problem(folder: str) -> str:
    """What is wrong with the tokenizer in `folder`; empty if it turns sentences into ids that make sense."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        return f"does not load: {' '.join(str(error).split())[:200]}"
    ids = [tokenizer(sentence).input_ids for sentence in SENTENCES]
    if any(not sentence or sentence[-1] != tokenizer.eos_token_id for sentence in ids):
        return f"does not end a sentence with {tokenizer.eos_token}: {SENTENCES[0]!r} becomes {ids[0]}"
    unknown = sum(sentence.count(tokenizer.unk_token_id) for sentence in ids)
    if ids[0] == ids[1] or unknown > sum(map(len, ids)) / 2:
        return f"knows no English: {SENTENCES[0]!r} becomes {ids[0]}"
    return ""


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
