"""Lets xfuser 0.7 work without an accelerator, over gloo: the same parallel code as on GPUs, for tests.

It fails to import there only because it asks which accelerator's version it shall report, and leaves its
sequence parallelism out because no flash attention is found. Touches names that xfuser does not promise.
"""
# xfuser has no types, and its package object is incomplete while this works on it:
# pyright: reportAttributeAccessIssue=false

import importlib.util
import sys
from typing import Any

import torch


def import_on_cpu() -> None:
    """Import xfuser, before anybody else does, on a machine without accelerator."""
    if "xfuser" in sys.modules:
        return
    spec = importlib.util.find_spec("xfuser")
    assert spec is not None, "xfuser is a dependency"
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["xfuser"] = package
    from xfuser import envs  # of a package that has not run yet: its settings can still be changed

    envs.get_device_version = lambda: None
    envs.get_torch_distributed_backend = lambda: "gloo"
    envs.PACKAGES_CHECKER.packages_info["has_long_ctx_attn"] = True
    spec.loader.exec_module(package)
    _complete()


def _complete() -> None:
    """What xfuser's modules leave out where there is no GPU."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType
    from xfuser.model_executor.layers import usp
    from yunchang.globals import PROCESS_GROUP

    usp.PROCESS_GROUP = PROCESS_GROUP
    ATTENTION_FUNCTION_REGISTRY[AttentionBackendType.SDPA_FLASH] = _attend


def _attend(
    query_BHLD: torch.Tensor, key_BHLD: torch.Tensor, value_BHLD: torch.Tensor, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the log-sum-exp that a ring needs: what torch's own attention runs on a CPU."""
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return attend(query_BHLD, key_BHLD, value_BHLD, 0.0, False)[:2]
