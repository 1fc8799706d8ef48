"""wanray: datasets of videos with Wan2.1 and Wan2.2 on a Ray cluster, each clip exactly once.

Names load on first use, so that `wanray --help` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanray.config import RenderConfig, load_config
    from wanray.engine.job import Summary, execute
    from wanray.engine.prepare import Job, prepare
    from wanray.errors import ConfigError, EngineError, ManifestError, StageError, StorageError, WanrayError
    from wanray.records import Request

_HOMES = {
    "ConfigError": "wanray.errors",
    "EngineError": "wanray.errors",
    "Job": "wanray.engine.prepare",
    "ManifestError": "wanray.errors",
    "RenderConfig": "wanray.config",
    "Request": "wanray.records",
    "StageError": "wanray.errors",
    "StorageError": "wanray.errors",
    "Summary": "wanray.engine.job",
    "WanrayError": "wanray.errors",
    "execute": "wanray.engine.job",
    "load_config": "wanray.config",
    "prepare": "wanray.engine.prepare",
}

__all__ = [
    "ConfigError",
    "EngineError",
    "Job",
    "ManifestError",
    "RenderConfig",
    "Request",
    "StageError",
    "StorageError",
    "Summary",
    "WanrayError",
    "execute",
    "load_config",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wanray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
