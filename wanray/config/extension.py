"""Keys of prompt extension: a language model turns short prompts into ones that a video model likes."""

from dataclasses import dataclass, field

from wanray.config.checks import check_at_least, check_choice
from wanray.errors import ConfigError
from wanray.registry import PROMPT_KINDS

METHODS = ("none", "chat", "qwen")
LANGUAGES = ("zh", "en")
DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtensionConfig:
    """How prompts are extended before they are encoded. What decides the words is part of every key."""

    method: str = "none"
    """`none`; `chat`: an OpenAI-compatible endpoint (DashScope, vLLM, SGLang, `transformers serve`); `qwen`:
    a local Qwen checkpoint on the workers of pools.extend."""
    model: str | None = None
    """`chat`: its name at the endpoint, `qwen-plus` where None; `qwen`: a folder, or a repository such as
    `Qwen/Qwen2.5-14B-Instruct`."""
    image_model: str | None = None
    """The same for prompts with images: a model that sees, such as `qwen-vl-max`."""
    base_url: str = DASHSCOPE
    """Of the endpoint, up to and without `/chat/completions`."""
    api_key_env: str | None = "DASH_API_KEY"
    """Name of the environment variable, on the workers, with the endpoint's key; None: it needs none."""
    language: str = "zh"
    """Of the extended prompt: `zh`, as in the official code, or `en`."""
    templates: dict[str, str] = field(default_factory=dict)
    """Kind of prompt (t2v, i2v, i2v_empty, flf2v, vace) -> file with a system prompt of your own."""
    seed: int = 0
    """Of the language model."""
    variants: int = 1
    """Extended prompts to make of each prompt; every one is a request of its own."""
    max_tokens: int = 512
    """Longest answer."""
    on_error: str = "keep"
    """A prompt that cannot be extended: `keep` renders it as written, and meta.json says so; `fail`."""
    timeout_s: float = 60.0
    """For one answer."""
    retries: int = 4
    """Further tries when the endpoint is busy or away, with growing waits."""
    requests_per_minute: float | None = None
    """Most calls of all workers together; None: as many as pools.extend.workers make."""

    def __post_init__(self) -> None:
        check_choice("extension.method", self.method, METHODS)
        check_choice("extension.language", self.language, LANGUAGES)
        check_choice("extension.on_error", self.on_error, ("keep", "fail"))
        for name, least in (
            ("seed", 0),
            ("variants", 1),
            ("max_tokens", 1),
            ("retries", 0),
            ("timeout_s", 0.1),
        ):
            check_at_least(f"extension.{name}", getattr(self, name), least)
        check_at_least("extension.requests_per_minute", self.requests_per_minute, 0.1)
        for kind in self.templates:
            check_choice("extension.templates", kind, PROMPT_KINDS)
        if self.method == "none" and self.variants > 1:
            raise ConfigError(
                f"extension.variants {self.variants} needs a method: set extension.method to chat or qwen"
            )
        if self.method == "qwen" and self.model is None and self.image_model is None:
            raise ConfigError("extension.model must name a Qwen checkpoint for method qwen, got None")
        if not self.base_url.startswith(("http://", "https://")) or "@" in self.base_url:
            raise ConfigError(
                "extension.base_url must start with http:// or https:// and hold no key; "
                "the key belongs into the environment (extension.api_key_env)"
            )

    def model_for(self, has_images: bool) -> str | None:
        """The model that extends a prompt with or without images."""
        usual = ("qwen-vl-max" if has_images else "qwen-plus") if self.method == "chat" else None
        named = (self.image_model or self.model) if has_images else self.model
        return named or usual


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """Where extended prompts, text embeddings and image conditions are kept between runs."""

    url: str | None = None
    """A folder that all nodes see, or a URL such as s3://bucket/cache; None: only extended prompts are kept,
    in the output."""
    max_gib: float | None = None
    """A run removes the oldest entries above this at its end; None: only `wanray gc --cache-gib` does."""

    def __post_init__(self) -> None:
        check_at_least("cache.max_gib", self.max_gib, 0)
        if self.url is not None and not self.url.strip():
            raise ConfigError("cache.url must not be blank: name a folder or a URL, or leave it out")
