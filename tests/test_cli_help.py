"""Help comes at once: it imports nothing that is heavy."""

import json
import subprocess
import sys

import pytest
import typer

from wanray import cli

HEAVY = {
    "av",
    "diffusers",
    "fsspec",
    "numpy",
    "omegaconf",
    "pandas",
    "pyarrow",
    "ray",
    "rich",
    "s3fs",
    "torch",
    "transformers",
    "yaml",
}
SCRIPT = """
import json, sys
from wanray import cli
for words in json.loads(sys.argv[1]):
    sys.argv = ["wanray", *words, "--help"]
    try:
        cli.main()
    except SystemExit as ending:
        assert ending.code == 0, words
    print("IMPORTED", json.dumps([words, sorted(sys.modules)]))
"""


def command_lines() -> list[list[str]]:
    """Of all commands and groups."""

    def below(command, words):
        yield words
        for name, part in getattr(command, "commands", {}).items():
            yield from below(part, [*words, name])

    return list(below(typer.main.get_command(cli.app), []))


@pytest.fixture(scope="module")
def imported():
    """Words of a command line -> top-level packages that its help and all before it have imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(command_lines())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("IMPORTED ") for line in done.stdout.splitlines() if "IMPORTED " in line]
    return {tuple(words): {name.split(".")[0] for name in names} for words, names in map(json.loads, lines)}


def test_every_command_has_help(imported):
    assert {("plan",), ("render",), ("status",), ("doctor",), ()} <= imported.keys()
    assert len(imported) == len(command_lines())


def test_help_imports_nothing_heavy(imported):
    found = {" ".join(words): sorted(names & HEAVY) for words, names in imported.items()}
    assert not {words: names for words, names in found.items() if names}
