"""`wanray models`: the registry as a table, a card and JSON."""

import json
import re

import pytest

from wanray.catalog import num_parameters
from wanray.registry import MODELS, TASKS, get_model


def test_table_has_every_model_twice(run_cli):
    code, out, _ = run_cli("models")
    assert code == 0
    for name, model in MODELS.items():
        what, defaults = re.findall(rf"^{re.escape(name)} .*", out, re.MULTILINE)
        assert [word for word in (*model.tasks, model.repository) if word not in what] == []
        values = model.defaults
        words = (
            f"{values.width}x{values.height}",
            str(TASKS[model.tasks[0]].max_frames or values.num_frames),
            str(values.steps),
            f"{values.shift:g}",
        )
        assert [
            word for word in words if word not in defaults.split()[1:] and f"{word};" not in defaults
        ] == []
    assert "…" not in out


@pytest.mark.parametrize(
    ("name", "guidance"),
    [("t2v-a14b", "high 4 / low 3"), ("i2v-a14b", "high 3.5 / low 3.5"), ("t2v-14b", "5")],
)
def test_guidance_is_unmistakable(run_cli, name, guidance):
    assert re.search(rf"^guidance +{guidance}$", run_cli("models", name)[1], re.MULTILINE)
    assert re.search(rf"^{name} .* {guidance} +(0\.\d+|-) *$", run_cli("models")[1], re.MULTILINE)


@pytest.mark.parametrize("name", MODELS)
def test_card(run_cli, name):
    code, out, _ = run_cli("models", name)
    model = get_model(name)
    assert code == 0
    words = [model.repository, ", ".join(model.sizes), model.defaults.negative_prompt, *model.inputs]
    assert [word for word in words if word not in out] == []


def test_shift_by_size(run_cli):
    assert "5; 3 at 832x480, 480x832" in run_cli("models", "i2v-14b-720p")[1]


def test_unknown_model(run_cli):
    code, out, err = run_cli("models", "nonsense")
    assert (code, out) == (1, "")
    assert err.startswith("error: model.name 'nonsense' is unknown: use one of")


def test_json(run_cli):
    rows = json.loads(run_cli("models", "--json")[1])
    assert [row["name"] for row in rows] == list(MODELS)
    assert json.loads(run_cli("models", "t2v-a14b", "--json")[1]) == next(
        row for row in rows if row["name"] == "t2v-a14b"
    )
    row = next(row for row in rows if row["name"] == "flf2v-14b")
    assert row["inputs"]["required"] == {"flf2v": ["image", "last_image"]}
    assert row["defaults"]["guidance"] == {"high": 5.0, "low": 5.0}
    assert row["experts"] == ["single"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("t2v-1.3b", 1.419),
        ("t2v-14b", 14.288),
        ("t2v-a14b", 14.288),
        ("i2v-a14b", 14.289),
        ("i2v-14b-480p", 16.395),
        ("flf2v-14b", 16.396),
        ("vace-1.3b", 2.154),
        ("vace-14b", 17.338),
        ("ti2v-5b", 5.000),
    ],
)
def test_parameters_are_those_of_the_networks(name, billions):
    """Counted on the meta device with the official classes."""
    assert round(num_parameters(get_model(name)) / 1e9, 3) == billions
