"""The plan's estimate against a real stream of stages that only wait."""

import logging

import pytest
from runs import found_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

CLOSE = 0.05
logger = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def found(tmp_path_factory, cluster):
    """What `estimating.py` found out."""
    return found_by("estimating.py", cluster, tmp_path_factory.mktemp("estimating"), 980)


def test_the_estimate_is_within_five_percent_of_what_a_run_takes(found):
    """`--log-cli-level=INFO` shows the table."""
    off = {name: case["estimated_s"] / case["measured_s"] - 1 for name, case in found.items()}
    rows = [
        f"{name:30} estimated {case['estimated_s']:5.1f} s, measured {case['measured_s']:5.1f} s "
        f"({off[name]:+.1%}, run {case['tries']} of up to 3)"
        for name, case in found.items()
    ]
    table = "\n".join(rows)
    logger.info("\n%s", table)
    assert len(off) == 4
    assert all(abs(error) < CLOSE for error in off.values()), table


def test_each_pool_of_eight_gangs_is_as_busy_as_the_plan_says(found):
    rows = [
        f"{name:30} {pool:14} promised {case['promised'][pool]:6.1%}, measured {case['busy'][pool]:6.1%}"
        for name, case in found.items()
        for pool in case["busy"]
    ]
    table = "\n".join(rows)
    logger.info("\n%s", table)
    assert len(rows) == 16
    for case in found.values():
        for pool, share in case["busy"].items():
            assert abs(case["promised"][pool] - share) < CLOSE, table
