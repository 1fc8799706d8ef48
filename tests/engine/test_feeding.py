"""Encoders keep a gang busy: as many as the planner says, and not further ahead of it than they may."""

import pytest
from feeding import DENOISE_S, ENCODE_S, ROWS, ROWS_AHEAD
from runs import found_by

from wanray.engine.stream import AHEAD
from wanray.plan.encoding import workers_to_feed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def fed(tmp_path_factory, cluster):
    """What `feeding.py` found out."""
    return found_by("feeding.py", cluster, tmp_path_factory.mktemp("feeding"), 380)


def test_as_many_encoders_are_needed_as_the_planner_says(fed):
    planned = workers_to_feed(ROWS * ENCODE_S, ROWS * DENOISE_S)
    shares = {int(workers): share for workers, share in fed["busy"].items()}
    # where others use the machine too, even enough encoders do not keep the gang busy all the time
    needed = min(workers for workers, share in shares.items() if share > 0.95 * max(shares.values()))
    assert abs(needed - planned) <= 1, shares
    assert shares[1] < 0.5, "one encoder is far too few, and the gang waits"


def test_records_are_encoded_while_gangs_load_but_not_too_many(fed):
    assert ROWS_AHEAD <= fed["encoded"] <= ROWS_AHEAD + 1 + AHEAD
