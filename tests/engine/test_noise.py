"""What Ray says on the terminal: only what a user can do something about comes through."""

import logging
import os
import sys
from pathlib import Path

import pytest

ray_worker = pytest.importorskip("ray._private.worker")

from wanray.engine.noise import tamed  # noqa: E402

CORE = "[2026-11-22 15:00:15,938 E 21856 21856] core_worker.cc:2465: Actor with class name: 'MapWorker'\n"
FATAL = "[2026-11-22 15:00:15,938 C 21856 21856] raylet.cc:1: the disk is full\n"
CROWD = "WARNING: 8 PYTHON worker processes have been started on node: 47 with address: 192.0.2.2"


def test_lines_of_the_core_are_kept_for_debugging(capfd, caplog):
    with caplog.at_level(logging.DEBUG, "wanray"), tamed():
        os.write(2, (CORE + FATAL + "from a library\n").encode())
        sys.stderr.write("from Python\n")
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(
        [FATAL.strip(), "from a library", "from Python"]
    )
    assert "core_worker.cc:2465" in caplog.text


def test_what_raylets_report_becomes_our_log_and_leaves_stdout_alone(capfd, caplog):
    with caplog.at_level(logging.INFO, "wanray"), tamed():
        for text in (CROWD, "1 worker was killed\n due to memory pressure"):
            ray_worker.print_to_stdstream(
                {"lines": [text], "pid": "raylet", "is_err": False}, ignore_prefix=False
            )
    assert caplog.messages == ["ray: 1 worker was killed due to memory pressure"]
    assert capfd.readouterr().out == ""


def test_all_is_as_before_when_the_block_has_ended(capfd):
    before, stderr = ray_worker.print_to_stdstream, sys.stderr
    descriptors = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with tamed(), pytest.raises(ValueError, match="x"):
            raise ValueError("x")
    assert (ray_worker.print_to_stdstream, sys.stderr) == (before, stderr)
    os.write(2, b"loud again\n")
    assert capfd.readouterr().err == "loud again\n"
    assert len(set(Path("/proc/self/fd").iterdir()) - descriptors) <= 1, "but for the listing itself"
