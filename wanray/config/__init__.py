"""The configuration: frozen dataclasses (`schema`) and how YAML and overrides become them (`load`)."""

from wanray.config.estimate import EstimateConfig
from wanray.config.extension import CacheConfig, ExtensionConfig
from wanray.config.faults import ATTENTIONS, DenoisingConfig, EncodingConfig, FaultsConfig, MediaConfig
from wanray.config.load import load_config, make_config, place_of
from wanray.config.schema import (
    DefaultsConfig,
    ModelConfig,
    NumericsConfig,
    OutputConfig,
    PoolConfig,
    PoolsConfig,
    RayConfig,
    RenderConfig,
    VideoConfig,
)
from wanray.config.serve import ServeConfig
from wanray.config.topology import RING_ATTENTIONS, TopologyConfig

__all__ = [
    "ATTENTIONS",
    "RING_ATTENTIONS",
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
    "ServeConfig",
    "TopologyConfig",
    "VideoConfig",
    "load_config",
    "make_config",
    "place_of",
]
