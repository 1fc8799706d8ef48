"""The world in which `chaos.py` renders: a simulated Ray cluster, and S3 behind a proxy that fails."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from processes import children_of

LONGEST_ABSENCE_S = 15.0
"""Until a node that was killed is replaced."""


class Fleet:
    """The simulated cluster: a head, and two nodes for all that computes."""

    def __init__(self, seed: int) -> None:
        from ray.cluster_utils import Cluster

        self._random = random.Random(seed)
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._due_s: list[float] = []
        for _ in range(2):
            self._add()

    @property
    def address(self) -> str:
        """For ray.address."""
        return self._cluster.address

    def _add(self) -> None:
        self._cluster.add_node(num_cpus=16, labels={"role": "render"})

    def tend(self) -> None:
        """Replace the nodes whose time has come; in the main thread, since they die with who made them."""
        while self._due_s and time.monotonic() >= min(self._due_s):
            self._due_s.remove(min(self._due_s))
            self._add()

    def kill_node(self) -> bool:
        """Kill a raylet and its helpers; its workers find out by themselves. False where there is none."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id)
        if nodes:
            self._cluster.remove_node(self._random.choice(nodes), allow_graceful=False)
            self._due_s.append(time.monotonic() + self._random.uniform(0, LONGEST_ABSENCE_S))
        return bool(nodes)

    def processes(self) -> set[int]:
        """Pids of everything that the raylets have started."""
        raylets = [
            info.process.pid
            for node in self._cluster.list_all_nodes()
            for info in node.all_processes.get("raylet", [])
        ]
        return set().union(*map(children_of, raylets))

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def proxy_before(endpoint: str, seed: int, error_rate: float) -> Iterator[str]:
    """The proxy in a process of its own; its URL."""
    command = [sys.executable, str(Path(__file__).with_name("s3_proxy.py")), "--listen=0"]
    command += [f"--upstream={endpoint}", f"--seed={seed}", f"--error-rate={error_rate}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def faults(proxy: str, **settings: float) -> dict[str, Any]:
    """Change what the proxy does; returns what it has done."""
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    with urlopen(Request(f"{proxy}/__faults__?{query}", method="PUT"), timeout=30) as answer:
        return json.load(answer)
