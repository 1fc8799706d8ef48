"""The Serve config of a RayService, deployed on a local cluster with a node per worker group.

It is that of the manifest but for checkpoint, output and address; a pool has one worker, a node two CPUs.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from deployed import DEPLOY, POOL_LABEL, arguments, cluster, groups, service

sys.path.insert(0, str(Path(__file__).parent / "engine"))
from heads import BIN, free_ports
from runs import ENVIRONMENT, SMALL, events, metas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
TOKEN = "not for everybody"
LONG = {"steps": 1000, "num_frames": 41}
_, SPEC = service("t2v-a14b")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """fleet: the cluster; nodes: ids of the workers' nodes by label; jobs: URL of the dashboard; url: of the
    endpoint; out: the output.
    """

    fleet: Any
    nodes: dict[str, str]
    jobs: str
    url: str
    out: Path

    def ask(self, method: str, path: str, **body: Any) -> requests.Response:
        """With the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.request(
            method, self.url + path, json=body or None, headers=headers, timeout=60, allow_redirects=False
        )

    def details(self) -> dict[str, Any]:
        """What Ray Serve's REST API says, which KubeRay asks."""
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        return ServeSubmissionClient(self.jobs).get_serve_details()

    def application(self) -> dict[str, Any]:
        """Of these, the part on our application; empty before there is any."""
        return self.details()["applications"].get("wanray", {})

    def add_nodes(self) -> None:
        """One per worker group."""
        for label in (group["labels"] for group in groups(SPEC)):
            self.nodes[label[POOL_LABEL]] = self.fleet.add_node(num_cpus=2, labels=label).node_id

    def ranks(self) -> dict[str, tuple[str, int]]:
        """Pool -> (first letters of its node's id, process id), as last heard."""
        places = {
            item["pool"]: item["detail"] for item in events(self.out, "gang") if item["state"] == "idle"
        }
        return {pool: (place.split(":")[0], int(place.split(":")[1])) for pool, place in places.items()}


def until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    """What `condition()` says when it says anything."""
    deadline_s = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.5)
    return found


def run(*command: str) -> None:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def deployed(model: Path, folder: Path, come_late: bool) -> Iterator[Endpoint]:
    """The head of the manifest, and what KubeRay deploys there; the nodes come before or after that."""
    from ray.cluster_utils import Cluster
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    port, dashboard = free_ports(2)
    head = {"num_cpus": 2, "labels": cluster(SPEC)["headGroupSpec"]["labels"]}
    fleet = Cluster(
        initialize_head=True,
        head_node_args=head | {"include_dashboard": True, "dashboard_port": dashboard},
    )
    try:
        jobs, url = f"http://{fleet.head_node.address_info['webui_url']}", f"http://127.0.0.1:{port}"
        endpoint = Endpoint(fleet=fleet, nodes={}, jobs=jobs, url=url, out=folder / "out")
        if not come_late:
            endpoint.add_nodes()
        ServeSubmissionClient(jobs).deploy_applications(serve_config(model, endpoint.out, port))
        yield endpoint
    finally:
        fleet.shutdown()


def serve_config(model: Path, out: Path, port: int) -> dict[str, Any]:
    """That of the manifest, elsewhere, with one CPU worker per pool, and states of interrupted clips only."""
    config, _ = service("t2v-a14b")
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    own = arguments(config)
    own |= {"model": {"path": str(model)}, "output": {"url": str(out)}, "numerics": {"dtype": "float32"}}
    own["denoise"] = {"checkpoint_every_steps": 0}
    for pool in own["pools"].values():
        pool |= {"resources": {"GPU": 0, "CPU": 1}, "gangs" if "gangs" in pool else "workers": 1}
    return config


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Of all pods; the token stands for the Secret in that of the head."""
    from wanray.engine.cluster import LOCAL_ENVIRONMENT

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (LOCAL_ENVIRONMENT | ENVIRONMENT | {"WANRAY_TOKEN": TOKEN}).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def endpoint(tiny, tmp_path_factory) -> Iterator[Endpoint]:
    with deployed(tiny("t2v-a14b"), tmp_path_factory.mktemp("online"), come_late=False) as made:
        until(lambda: made.application().get("status") in ("RUNNING", "DEPLOY_FAILED"))
        assert made.application()["status"] == "RUNNING", made.application()
        yield made


def test_each_pool_renders_on_the_nodes_of_its_group_and_the_head_answers(endpoint):
    assert requests.get(f"{endpoint.url}/v1/status", timeout=60).status_code == 401
    accepted = endpoint.ask("POST", "/v1/videos", prompt="a cat", seed=1, **SMALL)
    assert accepted.status_code == 202
    path = accepted.headers["Location"]
    until(lambda: endpoint.ask("GET", path).json()["status"] in ("completed", "failed"))
    view = endpoint.ask("GET", path).json()
    assert view["status"] == "completed", view
    assert endpoint.ask("GET", view["links"]["content"]).content[4:8] == b"ftyp"
    assert list(metas(endpoint.out)) == [view["id"]]

    head = endpoint.fleet.head_node.node_id
    deployments = endpoint.application()["deployments"]
    replicas = {name: [item["node_id"] for item in one["replicas"]] for name, one in deployments.items()}
    assert replicas == {"api": [head], "renderer": [head]}
    assert list(endpoint.details()["proxies"]) == [head]
    assert {
        pool: [label for label, node in endpoint.nodes.items() if node.startswith(place)]
        for pool, (place, _) in endpoint.ranks().items()
    } == {pool: [pool.replace("_", "-")] for pool in ("encode", "denoise_high", "denoise_low", "decode")}


def test_pods_that_are_told_to_go_leave_nothing_behind(endpoint):
    """What leave.sh says on a worker whose gang is idle, and then on the head with a clip in work."""
    _, rank = endpoint.ranks()["decode"]
    drain = [f"--address={endpoint.fleet.address}", f"--node-id={endpoint.nodes['decode']}"]
    drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds=150"]
    run("ray", "drain-node", *drain, "--reason-message=go")
    until(lambda: not Path(f"/proc/{rank}").exists(), seconds=60)

    key = endpoint.ask("POST", "/v1/videos", prompt="a dog", **SMALL | LONG).json()["id"]
    until(lambda: endpoint.ask("GET", f"/v1/videos/{key}").json().get("step"))
    others = [pid for pool, (_, pid) in endpoint.ranks().items() if pool != "decode"]
    assert all(Path(f"/proc/{pid}").exists() for pid in others)
    assert "serve shutdown --yes" in (DEPLOY / "leave.sh").read_text()
    run("serve", "shutdown", "--yes", "--address", endpoint.jobs)
    until(lambda: "node_id" not in endpoint.details()["controller_info"], seconds=120)
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)
    assert [path.stem for path in endpoint.out.glob("queue/*")] == [key]
    assert [*endpoint.out.glob(f"work/{key}/state-*")]
    assert len([*endpoint.out.glob("runs/*/summary.json")]) == 1


def test_an_endpoint_may_be_deployed_before_its_nodes_come(tiny, tmp_path):
    """As KubeRay does, which deploys when the head is up, and does not ask again when that fails."""
    with deployed(tiny("t2v-a14b"), tmp_path, come_late=True) as made:
        until(lambda: [*made.out.glob("runs/*/config.yaml")])
        deadline_s = time.monotonic() + 30
        while made.application()["status"] != "DEPLOY_FAILED" and time.monotonic() < deadline_s:
            time.sleep(1)
        made.add_nodes()
        until(lambda: made.application()["status"] in ("RUNNING", "DEPLOY_FAILED"))
        assert made.application()["status"] == "RUNNING"
