"""Encoders keep a gang busy: as many as the planner says, and not further ahead of it than they may."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from feeding import DENOISE_S, ENCODE_S, ROWS, ROWS_AHEAD
from runs import ENVIRONMENT

from wanray.engine.stream import AHEAD
from wanray.plan.encoding import workers_to_feed

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def fed(tmp_path_factory, cluster):
    """What `feeding.py` found out."""
    script, folder = Path(__file__).with_name("feeding.py"), tmp_path_factory.mktemp("feeding")
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(
        [sys.executable, str(script), cluster, str(folder)],
        capture_output=True, text=True, timeout=380, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def test_as_many_encoders_are_needed_as_the_planner_says(fed):
    planned = workers_to_feed(ROWS * ENCODE_S, ROWS * DENOISE_S)
    shares = {int(workers): share for workers, share in fed["busy"].items()}
    needed = min(workers for workers, share in shares.items() if share > 0.9)
    assert abs(needed - planned) <= 1, shares
    assert shares[1] < 0.5, "one encoder is far too few, and the gang waits"


def test_records_are_encoded_while_gangs_load_but_not_too_many(fed):
    assert ROWS_AHEAD <= fed["encoded"] <= ROWS_AHEAD + 1 + AHEAD
