"""Overrides that would break the line of an error: whatever they hold, the message stays one line."""

import pytest


@pytest.mark.parametrize("override", ["\rerror:=", "\r=", "\nerror:=1", "a\nerror: b=%", "a\x85b=1"])
def test_an_error_is_one_line(tiny, tmp_path, run_cli, override):
    path = tmp_path / "c.yaml"
    path.write_text(f"manifest: m.jsonl\noutput: {{url: out}}\nmodel: {{path: {tiny('t2v-1.3b')}}}\n")
    code, _, err = run_cli("plan", path, override)
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert repr(override.partition("=")[0])[1:-1] in line
