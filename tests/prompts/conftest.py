import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stub_endpoint import StubEndpoint


@pytest.fixture
def endpoint() -> Iterator[StubEndpoint]:
    """An endpoint on loopback that answers as it is told to."""
    with StubEndpoint() as stub:
        yield stub
