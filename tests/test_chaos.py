"""What dies while a cluster renders, and what that costs: nothing. The test itself is `chaos.py`."""

import uuid

import chaos
import pytest

QUICK = ("rank", "pool", "proxy", "worker")


@pytest.fixture
def bucket():
    """A place of its own in the server's one bucket."""
    return f"renders/{uuid.uuid4().hex}"


@pytest.mark.timeout(400)
def test_nothing_is_lost_when_ranks_pools_and_proxies_die(s3_endpoint, bucket, tmp_path):
    options = chaos.Options(rows=12, kills=4, seed=1, gangs=1, kinds=QUICK, first=("rank", "pool", "proxy"))
    course = chaos.unleash(options, s3_endpoint, bucket, tmp_path)
    assert course.kills.keys() >= {"rank", "pool", "proxy"}, course.facts


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_nothing_is_lost_when_nodes_and_drivers_die_too(s3_endpoint, bucket, tmp_path):
    options = chaos.Options(rows=60, kills=20, seed=2, first=("raylet", "driver", "term"))
    course = chaos.unleash(options, s3_endpoint, bucket, tmp_path)
    assert course.kills.keys() >= {"raylet", "driver", "term"}, course.facts
