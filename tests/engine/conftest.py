import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster for all tests of a file; its address."""
    import ray

    from wanray.engine.cluster import LOCAL_ENVIRONMENT

    os.environ.update(LOCAL_ENVIRONMENT)
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
