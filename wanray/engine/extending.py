"""What a job's prompt extension comes to: its part of every key, and the config of its stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanray.config import ExtensionConfig, RenderConfig
from wanray.digest import folder_digest
from wanray.errors import ConfigError
from wanray.hub import resolve as resolve_path
from wanray.manifest import Extension
from wanray.prompts import template, template_digest
from wanray.prompts.qwen_folder import read_folder
from wanray.registry import PROMPT_KINDS, TASKS, Model, prompt_kind
from wanray.sinks.cache import cache_url
from wanray.stages.configs import ExtendConfig


@dataclass(frozen=True, slots=True)
class Extending:
    """Of one job."""

    extension: Extension
    stage: ExtendConfig

    def words(self) -> dict[str, Any]:
        """For the plan."""
        return {
            "method": self.stage.method,
            "models": sorted(set(self.stage.models.values())),
            "language": self.stage.language,
            "variants": self.extension.variants,
        }


def make_extending(config: RenderConfig, model: Model) -> Extending | None:
    """None where prompts are rendered as written.

    Raises:
        ConfigError: a template cannot be read, or no model is named for prompts that the job may have.
    """
    settings = config.extension
    if settings.method == "none":
        return None
    templates = {kind: _template(kind, settings) for kind in _kinds(model)}
    models = {has_images: _model(settings, has_images) for has_images in _needed(model)}
    names = {has_images: _name(settings, path) for has_images, path in models.items()}
    rate = settings.requests_per_minute
    extension = Extension(
        settings={"method": settings.method, "language": settings.language, "seed": settings.seed},
        text_model=names.get(False),
        image_model=names.get(True),
        templates={kind: template_digest(text) for kind, text in templates.items()},
        variants=settings.variants,
    )
    stage = ExtendConfig(
        method=settings.method,
        models=models,
        templates=templates,
        language=settings.language,
        max_tokens=settings.max_tokens,
        on_error=settings.on_error,
        cache_url=cache_url(config.cache.url, config.output.url),
        base_url=settings.base_url,
        api_key_env=settings.api_key_env,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
        requests_per_minute=None if rate is None else rate / config.pools.extend.workers,
        media=config.media,
    )
    return Extending(extension, stage)


def _kinds(model: Model) -> list[str]:
    kinds = {prompt_kind(task, has_prompt) for task in model.tasks for has_prompt in (True, False)}
    return [kind for kind in PROMPT_KINDS if kind in kinds]


def _needed(model: Model) -> list[bool]:
    """Whether models for prompts without and with images are needed."""
    return sorted({"image" in TASKS[task].required for task in model.tasks})


def _template(kind: str, settings: ExtensionConfig) -> str:
    path = settings.templates.get(kind)
    if path is None:
        return template(kind, settings.language)
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"extension.templates.{kind} {path} cannot be read: {error}") from None
    if not text:
        raise ConfigError(f"extension.templates.{kind} {path} is empty: write what the model is to do")
    return text


def _model(settings: ExtensionConfig, has_images: bool) -> str:
    named = settings.model_for(has_images)
    if named is None:
        raise ConfigError(
            f"extension.{'image_model' if has_images else 'model'} must name a Qwen checkpoint: "
            f"the model takes prompts {'with' if has_images else 'without'} images"
        )
    if settings.method != "qwen":
        return named
    is_own = has_images and settings.image_model is not None
    key = f"extension.{'image_model' if is_own else 'model'}"
    folder = resolve_path(named, key)
    try:
        read_folder(folder)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return folder


def _name(settings: ExtensionConfig, model: str) -> str:
    """What a key calls the model: the digest of local weights, because a path says nothing of them."""
    return folder_digest(Path(model)) if settings.method == "qwen" else model
