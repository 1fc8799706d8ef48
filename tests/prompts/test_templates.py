"""The system prompts that are shipped, and which one a request gets."""

import hashlib
import itertools
import re

import pytest

from wanray.errors import ConfigError
from wanray.prompts import LANGUAGES, template, template_digest
from wanray.registry import PROMPT_KINDS, TASKS, prompt_kind

ALL = list(itertools.product(PROMPT_KINDS, LANGUAGES))


@pytest.mark.parametrize(("kind", "language"), ALL)
def test_each_kind_has_a_template_in_its_language(kind: str, language: str) -> None:
    text = template(kind, language)
    num_chinese = len(re.findall(r"[\u4e00-\u9fff]", text))
    assert (num_chinese > 0.7 * len(text)) if language == "zh" else (num_chinese == 0)
    assert text == text.strip()
    assert 300 < len(text) < 4000


def test_templates_differ() -> None:
    assert len({template_digest(template(*each)) for each in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("kind", "language", "limit"),
    [
        ("t2v", "en", "60 to 200 words"),
        ("t2v", "zh", "80到250个汉字"),
        ("i2v", "en", "at most 100 words"),
        ("i2v", "zh", "不超过100个汉字"),
        ("i2v_empty", "en", "at most 100 words"),
    ],
)
def test_templates_limit_the_length(kind: str, language: str, limit: str) -> None:
    assert limit in template(kind, language)


def test_a_template_of_the_users_own() -> None:
    assert template("vace", "en", " Describe it.\n") == "Describe it."
    with pytest.raises(ConfigError, match="given for vace is blank"):
        template("vace", "en", " \n")


def test_unknown_languages_are_refused() -> None:
    with pytest.raises(ConfigError, match="language 'fr': use zh or en"):
        template("t2v", "fr")


def test_the_digest_is_of_the_bytes() -> None:
    assert template_digest("猫") == hashlib.sha256("猫".encode()).hexdigest()


@pytest.mark.parametrize(
    ("task", "has_prompt", "kind"),
    [
        ("t2v", True, "t2v"),
        ("t2i", True, "t2v"),
        ("i2v", True, "i2v"),
        ("i2v", False, "i2v_empty"),
        ("flf2v", False, "flf2v"),
        ("vace", True, "vace"),
    ],
)
def test_the_kind_follows_the_task(task: str, has_prompt: bool, kind: str) -> None:
    assert prompt_kind(task, has_prompt) == kind


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_kind(task: str) -> None:
    assert prompt_kind(task, True) in PROMPT_KINDS
    assert prompt_kind(task, False) in PROMPT_KINDS
