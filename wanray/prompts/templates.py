"""The system prompts: one for each kind of question and language, as text files beside this one."""

import hashlib
from importlib.resources import files

from wanray.config.extension import LANGUAGES
from wanray.errors import ConfigError
from wanray.registry import PROMPT_KINDS


def template(kind: str, language: str, own: str | None = None) -> str:
    """The system prompt.

    kind: one of PROMPT_KINDS.
    own: the text of a system prompt that the user wrote, which is taken instead.

    Raises:
        ConfigError: there is none in that language, or the user's is blank.
    """
    assert kind in PROMPT_KINDS, kind
    if language not in LANGUAGES:
        raise ConfigError(
            f"prompts cannot be extended in language {language!r}: use {' or '.join(LANGUAGES)}"
        )
    if own is None:
        own = (files("wanray.prompts") / "templates" / f"{kind}.{language}.txt").read_text(encoding="utf-8")
    if not own.strip():
        raise ConfigError(f"the system prompt given for {kind} is blank: write one, or leave it out")
    return own.strip()


def template_digest(text: str) -> str:
    """sha256 in hex of a system prompt, for the key of a request."""
    return hashlib.sha256(text.encode()).hexdigest()
