"""Rows that are wrong alike are one line of the plan."""

import json
from io import StringIO

from rich.console import Console

from wanray.config import load_config
from wanray.engine.prepare import prepare
from wanray.manifest import Problem
from wanray.plan.page import plan_page
from wanray.plan.problems import MAX_EXAMPLES, MAX_MESSAGES, MAX_RULES, Problems


def problem(row, column, message):
    return Problem(row, f"r{row}", column, message)


def test_values_and_rows_do_not_tell_rules_apart():
    problems = Problems()
    problems.add(problem(row, "width", f"must be a multiple of 16, got {row}") for row in range(30))
    problems.add([problem(40, "id", "is already used by row 3 with other parameters: give it an id")])
    problems.add([problem(41, "id", "is already used by row 9 with other parameters: give it an id")])
    width, identifier = problems.broken_rules()
    assert (width.column, width.rule, width.num_rows) == ("width", "must be a multiple of 16", 30)
    assert width.examples[0] == 'row 0 (id "r0"), column width: must be a multiple of 16, got 0'
    assert len(width.examples) == MAX_EXAMPLES
    assert (identifier.num_rows, problems.num, len(problems.messages)) == (2, 32, MAX_MESSAGES)


def test_messages_that_all_differ_do_not_fill_the_memory():
    problems = Problems()
    problems.add(problem(row, "image", f"/pictures/{row}.png does not exist") for row in range(5000))
    rules = problems.broken_rules()
    assert len(rules) == MAX_RULES + 1
    assert rules[0].rule == "other rules"
    assert sum(rule.num_rows for rule in rules) == 5000


def test_the_page_counts_rows_that_are_wrong_alike(tiny, tmp_path):
    rows = [{"prompt": "cat", "width": 65, "height": 64} for _ in range(37)]
    rows += [{"prompt": "cat", "width": 64, "height": 64, "num_frames": 6}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tmp_path / "c.yaml"
    config.write_text(f"manifest: {tmp_path}/m.jsonl\noutput: {{url: {tmp_path}/out}}\n")
    plan = prepare(load_config(config, [f"model.path={tiny('t2v-1.3b')}"]), write=False).plan
    console = Console(width=200, record=True, file=StringIO())
    console.print(plan_page(plan))
    page = console.export_text()
    assert "37 rows: column width: must be a multiple of 16 pixels; the first is row 0" in page
    assert 'row 37 (id "row-0000037"), column num_frames' in page
    assert page.count("invalid   ") == 2
