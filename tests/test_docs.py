"""What the documentation says can be typed: commands parse, keys exist, links resolve, parts are current.

Blocks that say `sh run` are run here, in order, in one folder.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import click
import pytest
import typer
import typer.exceptions
import yaml
from commands import PAGES, ROOT, anchors, blocks, commands, dotted_keys, links, named_commands

from wanray.cli import app
from wanray.config import RenderConfig, load_config
from wanray.live.metrics import METRICS
from wanray.plan.compare import combinations, is_alternatives

sys.path.insert(0, str(ROOT / "tools"))
from make_docs import PARTS, made

README = ROOT / "README.md"
WALK = ("README.md", "docs/manifest.md", "docs/cost.md", "docs/operations.md")
"""Pages whose blocks are run, in this order."""
MADE_ON_THE_WAY = ("pictures.py",)
"""Scripts that a page writes before it runs them."""
REFUSALS = (click.ClickException, typer.exceptions.TyperException, ValueError)
"""What a command raises that cannot be typed so: Ray's, ours, and a config's."""
INCOMPLETE = ("MissingParameter", "BadOptionUsage")
"""Refusals of a command that lacks what it needs, such as `ray job stop` without an id."""
ENDINGS = (click.exceptions.Exit, typer.Exit)
NEEDED = "manifest: a.parquet\nmodel: {path: model}\noutput: {url: out}\n"


def name_of(page):
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


def parsed(cli, words):
    """Follow a command down to the one that would run, and have it parse its words; returns its values."""
    context = cli.make_context(words[0], list(words[1:]), resilient_parsing=False)
    while hasattr(cli, "resolve_command"):  # typer's groups are not click's
        name, cli, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        context = cli.make_context(name, rest, parent=context)
    return context.params


def check_wanray(words, folder):
    if words[1:] == [] or words[-1] == "--help":
        return
    values = parsed(typer.main.get_command(app), words)
    if "overrides" in values:
        check_overrides(str(values["config"]), values, folder)


def check_overrides(config, values, folder):
    """The config's keys and values, and those on the command line, are the schema's."""
    given = list(values["overrides"] or ())
    compared = [item for item in given if values.get("compare") and is_alternatives(item)]
    combinations([*(values.get("compare") or ()), *compared])
    path = folder / "needed.yaml" if not (ROOT / config).exists() else ROOT / config
    if path.parent == folder:
        path.write_text(NEEDED)
    load_config(path, [item for item in given if item not in compared])


def test_the_paths_of_the_endpoint_are_told_and_no_others():
    from wanray.engine.endpoint.api import app as endpoint

    told = re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \|", (ROOT / "docs/serving.md").read_text(), re.MULTILINE)
    paths = endpoint.openapi()["paths"]
    there = {(method.upper(), path.replace("{key}", "ID")) for path in paths for method in paths[path]}
    assert set(told) == there
    assert len(told) == len(there)


def check_make(words):
    variables = [word for word in words[1:] if "=" in word]
    done = subprocess.run(["make", "-n", *words[1:]], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    makefile = (ROOT / "Makefile").read_text()
    for variable in variables:
        assert f"$({variable.partition('=')[0]})" in makefile, variable


def is_tool(module):
    return (ROOT / f"{module.replace('.', '/')}.py").is_file()


def check_python(words, folder):
    if words[1] == "-m":
        assert words[2] in ("benchmarks", "pytest", "venv", "pip") or is_tool(words[2]), words
        assert all((ROOT / word).is_file() for word in words if word.endswith(".py")), words
        return
    assert words[1] in MADE_ON_THE_WAY or (ROOT / words[1]).is_file(), words
    if words[1] == "pipelines/render.py":
        check_wanray(["wanray", "render", *words[2:]], folder)


def check_ray(words, folder):
    from ray.scripts.scripts import cli

    ours = words.index("--") if "--" in words else len(words)
    parsed(cli, [word for word in words if word != "--"])
    if ours < len(words):
        check(words[ours + 1 :], folder)


def check(words, folder):
    kind = words[0]
    if kind == "make":
        check_make(words)
    elif kind == "wanray":
        check_wanray(words, folder)
    else:
        {"python": check_python, "ray": check_ray}[kind](words, folder)


@pages
def test_every_command_can_be_typed(page, tmp_path):
    for words in commands(page):
        try:
            check(words, tmp_path)
        except (*REFUSALS, *ENDINGS) as error:
            pytest.fail(f"{' '.join(words)}: {error}")


@pages
def test_every_command_that_is_named_exists(page, tmp_path):
    for words in named_commands(page):
        with suppress(*ENDINGS):  # of --help
            try:
                check(words, tmp_path)
            except REFUSALS as error:
                if type(error).__name__ not in INCOMPLETE:
                    pytest.fail(f"{' '.join(words)}: {error}")


@pytest.mark.parametrize(
    "line",
    [
        "wanray rendr CONFIG",
        "wanray render CONFIG --fast",
        "wanray render CONFIG faults.stall=1",
        "wanray render CONFIG engine=rey",
        "wanray job halt ID",
        "wanray plan CONFIG --compare defaults.steps=1,2",
        "ray job submit -- python pipelines/render.py CONFIG faults.stall=1",
        "ray job submit --speed 3 -- make test",
        "make coffee",
        "make bench SPEED=3",
        "python pipelines/rendr.py CONFIG",
    ],
)
def test_what_cannot_be_typed_is_found(line, tmp_path):
    with pytest.raises((*REFUSALS, AssertionError)):
        check(line.split(), tmp_path)


@pages
def test_every_link_resolves(page):
    for target, anchor in links(page):
        assert target.exists(), target
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{target.name}#{anchor}"


def known_keys(schema=RenderConfig, prefix=""):
    hints = get_type_hints(schema)
    for item in fields(schema):
        key = f"{prefix}{item.name}"
        yield key
        if is_dataclass(hints[item.name]):
            yield from known_keys(hints[item.name], f"{key}.")


@pages
def test_every_key_exists(page):
    known = set(known_keys())
    for key in dotted_keys(page):
        plain = re.sub(r"^pools\.(NAME|POOL|\*)", "pools.encode", key).removesuffix(".*").rstrip(".")
        if not plain.startswith("sweep."):
            assert plain in known, key


@pages
def test_yaml_is_of_the_schema(page, tmp_path):
    for block in blocks(page):
        if block.info == "yaml":
            text = NEEDED + yaml.safe_dump(
                {key: value for key, value in yaml.safe_load(block.body).items() if key not in NEEDED}
            )
            (tmp_path / "config.yaml").write_text(text)
            load_config(tmp_path / "config.yaml", [])


@pytest.mark.parametrize("page", sorted({page for page, _ in PARTS.values()}))
def test_made_parts_are_current(page):
    text = (ROOT / "docs" / page).read_text()
    assert made(page, text) == text, "run `make docs`"


def test_metrics_of_queries_exist():
    text = (ROOT / "docs/metrics.md").read_text()
    assert set(re.findall(r"ray_(wanray_[a-z_]+)", text)) == {metric.name for metric in METRICS}


def test_both_readmes_have_the_same_commands():
    chinese = ROOT / "README.zh.md"
    assert commands(chinese) == commands(README)
    assert run_blocks(chinese) == run_blocks(README)


def run_blocks(page):
    """What is run, without comments."""
    marked = [block for block in blocks(page) if block.exit_code is not None]
    return [re.sub(r" +#.*", "", block.body) for block in marked]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder from which the shipped configs and manifests can be named."""
    path = tmp_path_factory.mktemp("walk")
    for name in ("configs", "manifests", "pipelines"):
        (path / name).symlink_to(ROOT / name)
    return path


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WALK)
def test_blocks_run(folder, name):
    """Each page goes on in the folder that the pages before have left."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    bash = shutil.which("bash")
    assert bash is not None
    marked = [block for block in blocks(ROOT / name) if block.exit_code is not None]
    assert marked, f"{name} has no block to run"
    for block in marked:
        done = subprocess.run(
            [bash, "-euc", block.body],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            check=False,
        )
        assert done.returncode == block.exit_code, f"{block.body}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
