"""The commands, links and keys that pages of the documentation name, taken out of their Markdown."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("d*/README.md")])
CONFIG_SECTIONS = (
    "cache",
    "defaults",
    "denoise",
    "encode",
    "estimate",
    "extension",
    "faults",
    "media",
    "model",
)
CONFIG_SECTIONS += ("numerics", "output", "pools", "ray", "sweep")

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"<<'END'\n.*?^END$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh")
FIRST_WORDS = ("wanray", "make", "ray", "python")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    info: str
    body: str

    @property
    def is_shell(self) -> bool:
        """Whether its lines are commands."""
        return self.info.split(" ")[0] in SHELL

    @property
    def exit_code(self) -> int | None:
        """Of its last command, where it is to be run: `sh run`, `sh run=2`."""
        found = re.search(r"\brun(?:=(\d+))?$", self.info)
        return None if found is None else int(found[1] or 0)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [Block(found["info"].strip(), found["body"]) for found in FENCE.finditer(page.read_text())]


def commands(page: Path) -> list[list[str]]:
    """The words of each command in blocks of shell that one of FIRST_WORDS begins."""
    return _ours(line for block in blocks(page) if block.is_shell for line in _lines(block.body))


def named_commands(page: Path) -> list[list[str]]:
    """The same of inline code, where a command may stand without what it needs, such as `ray job stop`."""
    prose = FENCE.sub("", page.read_text())
    return _ours(code for code in re.findall(r"`([^`\n]+)`", prose) if " " in code)


def _ours(lines: Iterable[str]) -> list[list[str]]:
    found = map(_words, lines)
    return [words for words in found if words and words[0] in FIRST_WORDS]


def _lines(body: str) -> list[str]:
    return HEREDOC.sub("", body).replace("\\\n", " ").splitlines()


def _words(line: str) -> list[str]:
    """Without comments and leading variables; a command of a virtual environment by its own name."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose, such as 5'
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def links(page: Path) -> list[tuple[Path, str]]:
    """(file or folder, anchor or nothing) of each link that stays in the repository."""
    found = re.findall(r"\]\((?!https?://)([^)\s]+)\)", FENCE.sub("", page.read_text()))
    parts = (link.partition("#") for link in found)
    return [((page.parent / path) if path else page, anchor) for path, _, anchor in parts]


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dotted_keys(page: Path) -> set[str]:
    """What looks like a key of the config in inline code, such as `faults.drain_s`."""
    sections = "|".join(CONFIG_SECTIONS)
    found = re.findall(rf"`((?:{sections})\.[A-Za-z_.*]+)(?:=[^`]*)?`", page.read_text())
    return {key for key in found if not key.endswith((".py", ".json", ".md"))}
