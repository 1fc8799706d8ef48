"""Fixtures that several test files share: a real S3 server, of this process's own, on loopback."""

import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what tests share with the benchmarks
from benchmarks.seaweed import BUCKET, CREDENTIALS, s3_server

RunCli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a SeaweedFS that lives as long as the test session."""
    with s3_server(tmp_path_factory.mktemp("weed")) as endpoint:
        yield endpoint


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh place in the server's one bucket; the environment holds what is needed to reach it."""
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": s3_endpoint}).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What wanray remembers between runs must neither help nor harm the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunCli:
    """run_cli(*arguments) -> (exit code, stdout, stderr) of `wanray` in this process."""
    from wanray import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wanray", *map(str, arguments)])
        monkeypatch.setattr(logging.root, "handlers", [])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny(name) -> folder of a tiny random checkpoint of that model."""
    folder = tmp_path_factory.mktemp("tiny")

    def make(name: str) -> Path:
        from wanray.models.tiny import write_tiny

        if not (folder / name).exists():
            write_tiny(name, folder / name)
        return folder / name

    return make
