"""Whether a language model's answer is a prompt, and nothing but one. Knows no endpoint."""

import re
from dataclasses import replace

from wanray.errors import InputError
from wanray.prompts.question import CutAnswerError, Extender, Question

NUM_TRIES = 2
"""Answers that are asked for, with one seed after the other."""
_LEAST_SHARE = {"zh": 0.5, "en": 0.8}
"""Of the words outside quotation marks that must be of the language; a Chinese sign counts as a word."""

_THOUGHTS = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(
    r"\A[*#\s]*(?:(?:(?:final|new|improved|enhanced|extended|expanded|rewritten|revised|video)\s+)*prompt"
    r"|(?:最终|改写后的?|扩写后的?|优化后的?|润色后的?|视频)*提示词)[*\s]*[:：][*\s]*",  # noqa: RUF001
    re.IGNORECASE,
)
_PAIRS = ('""', "''", "“”", "‘’", "「」", "『』")  # noqa: RUF001
_QUOTED = re.compile(
    r"“[^”]*”|「[^」]*」|『[^』]*』|《[^》]*》|«[^»]*»"
    r'|"[^"\n]*"'
    r"|(?<!\w)['‘](?:[^'’\n]|(?<=\w)['’](?=\w))*['’](?!\w)"  # noqa: RUF001 - between letters: an apostrophe
)
_WORD = re.compile(r"(?P<zh>[\u3400-\u9fff\U00020000-\U000323af])|(?P<en>[A-Za-z\u00c0-\u024f]+)|[^\W\d_]")
_START = r"(?:\A|[.!?。！？\n])\s*"  # noqa: RUF001
_REFUSALS = re.compile(
    rf"{_START}(?:"
    r"(?:i['’]?m|i am) (?:(?:really|very|so|terribly) )?(?:sorry|unable|not able)\b"  # noqa: RUF001
    r"|(?:sorry|apologies|unfortunately)\b[, ]+(?:but )?(?:i|we|this|that|your)\b"
    r"|(?:i|we) (?:can['’]?t|cannot|can not|won['’]?t|will not|must decline|apologi[sz]e)\b"  # noqa: RUF001
    r"|as an? (?:ai,|(?:ai|large|language)(?: language)? (?:model|assistant)\b)"
    r"|(?:非常|十分|很)?(?:抱歉|对不起|不好意思)[,，。!！\s]*(?:我|但|这|该|您|你|无法|不能)"  # noqa: RUF001
    r"|我(?:们)?(?:无法|不能|不会|没有办法)(?:为|提供|生成|创作|协助|帮|满足|处理|描述|完成|回答|看到|查看)"
    r"|作为(?:一[个名款])?(?:ai|人工智能|(?:大型?)?语言)(?:语言)?(?:模型|助手)"
    r"|(?:您的|你的|该|此|这个)?(?:请求|要求|内容|提示词)[^。\n]{0,10}(?:违反|违规|不符合)"
    r")",
    re.IGNORECASE,
)
_REMARKS = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay|ok)\b[,.!]"
    r"|here(?:['’]s| is| are)\b[^.\n]{0,60}\b(?:prompt|description|version|rewrite)[^.\n]{0,40}:"  # noqa: RUF001
    r"|(?:好的|当然|没问题)[,，。!！]"  # noqa: RUF001
    r"|(?:以下|下面)[^。\n]{0,30}(?:提示词|描述|版本)[^。\n]{0,10}[:：])",  # noqa: RUF001
    re.IGNORECASE,
)
_MARKUP = {
    "a code fence": re.compile(r"```|~~~"),
    "a tag": re.compile(r"</?[A-Za-z][^<>\n]*>"),
    "a heading": re.compile(r"^\s{0,3}#{1,6}\s|#{2,}\s", re.MULTILINE),
    "a list": re.compile(r"^\s*(?:[-*+•]\s|\d{1,2}(?:[.)]\s|、))", re.MULTILINE),
    "emphasis": re.compile(r"\*\*[^*\n]+\*\*|(?<!\w)__[^_\n]+__(?!\w)"),
    "a table": re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE),
}
_JSON = re.compile(r"\A[\[{]\s*[\[{\"]")


def extended(extender: Extender, question: Question, language: str) -> str:
    """The longer prompt, cleaned and checked; a bad answer is asked for anew with the next seed.

    language: `zh` or `en`, of the answer.

    Raises:
        InputError: the question is refused, or no answer can be used.
        ConfigError, InfrastructureError: as the extender does.
    """
    problem = ""
    for seed in range(question.seed, question.seed + NUM_TRIES):
        try:
            answer = _unwrapped(extender.ask(replace(question, seed=seed)))
        except CutAnswerError as error:
            problem = str(error)
            continue
        found = problem_of(answer, question, language)
        if found is None:
            return clean(answer)
        problem = found
    raise InputError(
        f"the prompt could not be extended in {NUM_TRIES} tries: {problem}: "
        "write it otherwise, or render it as it is"
    )


def clean(answer: str) -> str:
    """The prompt in one line, without thoughts, a label before it and quotation marks around it."""
    return " ".join(_unwrapped(answer).split())


def problem_of(answer: str, question: Question, language: str, max_chars: int = 2000) -> str | None:
    """Why an answer is no prompt; None if it is one.

    What stands in quotation marks is text in the picture, and may be anything.

    answer: cleaned, or as it came: headings, lists and tables are told by their lines.
    language: `zh` or `en`.
    """
    plain = _QUOTED.sub(" ", answer)
    if not _WORD.search(answer):
        return "the answer is empty"
    if _REFUSALS.search(plain) and not _REFUSALS.search(question.text):
        return f"the model refuses: {_excerpt(answer)}"
    if (markup := _markup_of(answer, plain)) is not None:
        return f"the answer has markup ({markup}): {_excerpt(answer)}"
    if _REMARKS.search(plain):
        return f"the answer talks to its reader: {_excerpt(answer)}"
    if not _is_in(plain, language):
        return f"the answer is not in language {language!r}: {_excerpt(answer)}"
    if len(answer) > max_chars:
        return f"the answer has {len(answer)} characters, more than {max_chars}"
    return None


def _unwrapped(answer: str) -> str:
    """`clean` but for its lines."""
    text = _LABEL.sub("", _THOUGHTS.sub("", answer).strip(), count=1).strip()
    if len(text) > 1 and text[0] + text[-1] in _PAIRS and not set(text[1:-1]) & set(text[0] + text[-1]):
        text = text[1:-1].strip()
    return text


def _markup_of(answer: str, plain: str) -> str | None:
    if _JSON.match(answer.strip()):
        return "JSON"
    return next((name for name, pattern in _MARKUP.items() if pattern.search(plain)), None)


def _is_in(text: str, language: str) -> bool:
    kinds = [word.lastgroup for word in _WORD.finditer(text)]
    return not kinds or kinds.count(language) / len(kinds) >= _LEAST_SHARE[language]


def _excerpt(answer: str) -> str:
    line = " ".join(answer.split())
    return repr(line if len(line) <= 80 else f"{line[:80]}...")
