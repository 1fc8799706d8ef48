import pytest

from wanray.models.tiny import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny(name) -> folder of a tiny random checkpoint of that model."""
    folder = tmp_path_factory.mktemp("tiny")

    def make(name):
        if not (folder / name).exists():
            write_tiny(name, folder / name)
        return folder / name

    return make
