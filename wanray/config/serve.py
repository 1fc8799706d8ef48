"""Keys of the endpoint."""

from dataclasses import dataclass, field

from wanray.config.checks import check_at_least
from wanray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """The endpoint of `wanray serve`. Batch runs do not look at it."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 8000
    """Port to listen on."""
    replicas: int = 1
    """Processes that answer HTTP. They render nothing."""
    max_open: int = 100
    """Requests that wait or are in work; one more is answered with 429."""
    max_body_mib: float = 64.0
    """Of one HTTP request; more is answered with 413."""
    token_env: str | None = None
    """Environment variable whose value every HTTP request must bring as `Authorization: Bearer`; None lets
    everybody in."""
    allow_uris: bool = False
    """Let requests name media by URIs, as far as `media` allows, besides bringing them along."""
    presign_s: int | None = None
    """Answer for a video with a presigned URL of the store that holds for so many seconds; None sends the
    bytes."""
    labels: dict[str, str] = field(default_factory=dict)
    """Node labels where the processes of the endpoint itself run, as in `pools.POOL.labels`."""

    def __post_init__(self) -> None:
        check_at_least("serve.replicas", self.replicas, 1)
        check_at_least("serve.max_open", self.max_open, 1)
        if not 0 <= self.port < 65536:
            raise ConfigError(f"serve.port must be 0 to 65535, got {self.port}")
        if self.max_body_mib <= 0:
            raise ConfigError(f"serve.max_body_mib must be more than 0, got {self.max_body_mib:g}")
        if self.presign_s is not None:
            check_at_least("serve.presign_s", self.presign_s, 1)
