"""A Ray head as an administrator starts one, whose ports, token and folder are nobody else's."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Head:
    """address: for drivers; jobs: URL of the job server; metrics: host and port that Prometheus scrapes;
    token: without it nobody is let in.
    """

    address: str
    jobs: str
    metrics: str
    token: str

    @property
    def environment(self):
        """What a process needs to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


def free_ports(count):
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def ray_head(num_cpus):
    """`ray start --head` with its job server, until the block ends."""
    gcs, dashboard, agent, client, metrics = free_ports(5)
    folder = tempfile.mkdtemp(prefix="ray")  # short: it holds sockets
    head = Head(
        address=f"127.0.0.1:{gcs}",
        jobs=f"http://127.0.0.1:{dashboard}",
        metrics=f"127.0.0.1:{metrics}",
        token=secrets.token_hex(32),
    )
    command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", f"--num-cpus={num_cpus}"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--ray-client-server-port={client}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
    command += [f"--metrics-export-port={metrics}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={200 * 2**20}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= head.environment | {"OMP_NUM_THREADS": "1"}
    environment |= {"RAY_worker_niceness": "0", "RAY_prestart_worker_first_driver": "0"}
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"  # it would wait 30 s for jobs that are none
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    with (Path(folder) / "stdout").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_for(head, process, Path(folder) / "stdout")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(head, process, log):
    """Return when jobs can be submitted."""
    deadline_s = time.monotonic() + 60
    while not _answers(head):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline_s, log.read_text()[-3000:]
        time.sleep(0.2)


def _answers(head):
    headers = {"Authorization": f"Bearer {head.token}"}
    try:
        return requests.get(f"{head.jobs}/api/jobs/", headers=headers, timeout=5).ok
    except requests.RequestException:
        return False
