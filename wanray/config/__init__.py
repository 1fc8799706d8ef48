"""The configuration: frozen dataclasses (`schema`) and how YAML and overrides become them (`load`)."""

from wanray.config.extension import CacheConfig, ExtensionConfig
from wanray.config.faults import DenoisingConfig, EncodingConfig, FaultsConfig, MediaConfig
from wanray.config.load import load_config, place_of
from wanray.config.schema import (
    DefaultsConfig,
    EstimateConfig,
    ModelConfig,
    NumericsConfig,
    OutputConfig,
    PoolConfig,
    PoolsConfig,
    RayConfig,
    RenderConfig,
    TopologyConfig,
    VideoConfig,
)

__all__ = [
    "CacheConfig",
    "DefaultsConfig",
    "DenoisingConfig",
    "EncodingConfig",
    "EstimateConfig",
    "ExtensionConfig",
    "FaultsConfig",
    "MediaConfig",
    "ModelConfig",
    "NumericsConfig",
    "OutputConfig",
    "PoolConfig",
    "PoolsConfig",
    "RayConfig",
    "RenderConfig",
    "TopologyConfig",
    "VideoConfig",
    "load_config",
    "place_of",
]
