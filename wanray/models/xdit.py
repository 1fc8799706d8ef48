"""xDiT: transformers whose forward the ranks of a gang share. The only module that imports xfuser.

xDiT keeps groups and attention in globals of its modules, so a process has one topology for good. What it
lacks is here: pads of a sequence that does not divide among the ranks are never attended to, and the guided
and the unguided forward can run side by side. Shape suffixes: B batch, H heads, L tokens, D width of a head.
"""

import importlib
import os
from collections.abc import Callable
from math import prod
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

from wanray.config import TopologyConfig
from wanray.models.load import blocks_of
from wanray.models.xdit_on_cpu import import_on_cpu

PAD = "wanray_pad"
"""Of xDiT's attention arguments: what `_without_pad` has to know."""


def import_xfuser(device: str) -> None:
    """Import it, which takes seconds, without what it says on stdout."""
    level = os.environ.get("LOG_LEVEL")
    os.environ["LOG_LEVEL"] = "error"  # it looks once, and has no other way
    try:
        if device == "cpu":
            import_on_cpu()
        importlib.import_module("xfuser.core.distributed")
    finally:
        os.environ.pop("LOG_LEVEL")
        if level is not None:
            os.environ["LOG_LEVEL"] = level


def start(topology: TopologyConfig, device: str, attention: str) -> None:
    """Make xDiT's groups out of the gang's process group, which all ranks have joined.

    attention: name of xDiT's backend; see `wanray.models.attention`.
    """
    from xfuser.core.distributed import parallel_state

    backend = "nccl" if device == "cuda" else "gloo"
    parallel_state.init_distributed_environment(
        world_size=dist.get_world_size(),
        rank=dist.get_rank(),
        distributed_init_method=None,  # pyright: ignore[reportArgumentType] (not asked for: we have joined)
        local_rank=0,  # a rank sees one GPU
        backend=backend,
    )
    parallel_state.initialize_model_parallel(
        classifier_free_guidance_degree=topology.cfg,
        sequence_parallel_degree=topology.ulysses * topology.ring,
        ulysses_degree=topology.ulysses,
        ring_degree=topology.ring,
        backend=backend,
    )
    _start_runtime(topology, attention)


def _start_runtime(topology: TopologyConfig, attention: str) -> None:
    """The state that xDiT's forwards look into; its own constructor wants a pipeline and picks attention."""
    from xfuser.core.distributed import runtime_state
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType

    state: Any = runtime_state.DiTRuntimeState.__new__(runtime_state.DiTRuntimeState)
    state.parallel_config = SimpleNamespace(ring_degree=topology.ring, ulysses_degree=topology.ulysses)
    state.runtime_config = SimpleNamespace(use_spargeattn_head_balance=False, use_hybrid_attn_schedule=False)
    state.step_counter = state.attention_schedule = state.gemm_schedule = None
    state.set_attention_backend(attention)
    runtime_state._RUNTIME = state
    backend = AttentionBackendType[attention]
    ATTENTION_FUNCTION_REGISTRY[backend] = _without_pad(ATTENTION_FUNCTION_REGISTRY[backend])


def shared(network: WanTransformer3DModel | WanVACETransformer3DModel) -> Any:
    """xDiT's transformer around the weights of `network`, which may still be empty.

    Latents, timestep and texts go in whole, and the velocity comes out whole, on each rank.
    """
    from xfuser.model_executor.models.transformers.transformer_wan import xFuserWanTransformer3DWrapper
    from xfuser.model_executor.models.transformers.transformer_wan_vace import (
        xFuserWanVACETransformer3DWrapper,
    )

    has_control = isinstance(network, WanVACETransformer3DModel)
    wrapper = xFuserWanVACETransformer3DWrapper if has_control else xFuserWanTransformer3DWrapper
    with init_empty_weights(include_buffers=False):
        transformer: Any = wrapper.from_config(network.config)
    transformer.load_state_dict(network.state_dict(), assign=True)
    _tell_pads(transformer)
    return transformer


def _tell_pads(transformer: Any) -> None:
    """Have each forward say how many tokens are pads, to the attention of tokens among each other."""
    from xfuser.core.distributed import get_sequence_parallel_world_size

    arguments: dict[str, Any] = {}
    for block in blocks_of(transformer):
        block.attn1.processor.attention_kwargs = arguments

    def tell(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latents_BCTHW = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        num_tokens = latents_BCTHW[0, 0].numel() // prod(module.config.patch_size)
        arguments[PAD] = _Pad(-num_tokens % get_sequence_parallel_world_size())

    transformer.register_forward_pre_hook(tell, with_kwargs=True)


class _Pad:
    """Pads at the end of the sequence, and which part of it an attention call will see."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self._calls = 0

    def is_next(self) -> bool:
        """Whether this call of attention sees the end of the sequence: keys and values go around the ring,
        and with n ranks the call number i of rank r sees those of rank r - i.
        """
        from xfuser.core.distributed import get_ring_parallel_rank, get_ring_parallel_world_size

        size = get_ring_parallel_world_size()
        seen = (get_ring_parallel_rank() - self._calls) % size
        self._calls += 1
        return seen == size - 1


def attend(attention: str, query_BHLD: torch.Tensor) -> torch.Tensor:
    """Attention of tokens among each other by one of xDiT's backends.

    Raises:
        Exception: whatever a kernel raises that is not there.
    """
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType

    backend = ATTENTION_FUNCTION_REGISTRY[AttentionBackendType[attention]]
    return backend(query_BHLD, query_BHLD, query_BHLD, dropout_p=0.0, is_causal=False)[0]


def _without_pad(attend: Callable[..., Any]) -> Callable[..., Any]:
    """Attention that leaves out the keys and values of pads; xDiT alone gives each weight e^0."""

    def attend_without(
        query_BHLD: torch.Tensor,
        key_BHLD: torch.Tensor,
        value_BHLD: torch.Tensor,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        pad = (attention_kwargs or {}).get(PAD)
        if pad is not None and pad.num_tokens and pad.is_next():
            key_BHLD, value_BHLD = key_BHLD[:, :, : -pad.num_tokens], value_BHLD[:, :, : -pad.num_tokens]
        return attend(
            query_BHLD,
            key_BHLD,
            value_BHLD,
            dropout_p=dropout_p,
            is_causal=is_causal,
            attention_kwargs=attention_kwargs,
        )

    return attend_without


def is_conditional() -> bool:
    """Whether this rank does the forward with the prompt, where cfg is 2; the first half does the other."""
    from xfuser.core.distributed import get_classifier_free_guidance_rank

    return get_classifier_free_guidance_rank() == 1


def from_both(velocity_BCTHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The conditional and the unconditional velocity, of which this rank has one."""
    from xfuser.core.distributed import get_cfg_group

    unconditional, conditional = get_cfg_group().all_gather(
        velocity_BCTHW.contiguous(), separate_tensors=True
    )
    return conditional, unconditional
