"""The manifests, the image and the pages of deploy/: whole, current, at one with the configs in them."""

import copy
import os
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from deployed import (
    DEPLOY,
    PAGES,
    POOL_LABEL,
    ROOT,
    arguments,
    cluster,
    commands,
    documents,
    groups,
    job,
    limits,
    load_make,
    options,
    service,
)
from kuberay_rules import problems_of

from wanray.checkpoint import open_checkpoint
from wanray.config import RenderConfig, load_config, make_config
from wanray.engine.cluster import Cluster, check_fit
from wanray.engine.endpoint.app import DRAIN_MARGIN_S, build
from wanray.engine.pipeline import PoolSpec, make_pools
from wanray.errors import EngineError
from wanray.plan.placement import choose_placement, pool_experts
from wanray.plan.pools import check_pools
from wanray.registry import MODELS

MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))


def run(*command: str, timeout: float = 60, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **kwargs)


def test_every_model_has_its_manifests_as_make_writes_them():
    make = load_make()
    written = {path.name: path.read_text() for path in MANIFESTS if path.name.startswith("ray")}
    assert written == {
        f"{kind}-{name}.yaml": make.render(kind, model, make.ray_version())
        for kind in ("rayjob", "rayservice")
        for name, model in MODELS.items()
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_has_nothing_to_refuse(path):
    for document in documents(path):
        assert problems_of(document) == []


def edited(change):
    """The problems of a good RayJob after `change(spec, first worker group, its container)`."""
    _, document = copy.deepcopy(documents(DEPLOY / "kuberay/rayjob-t2v-1.3b.yaml"))
    group = groups(document["spec"])[1]
    change(document["spec"], group, group["template"]["spec"]["containers"][0])
    return " ".join(problems_of(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec, group, container: spec.update(submissionMode="Http"), "submissionMode is 'Http'"),
        (lambda spec, group, container: spec.update(entryPoint="x"), "entryPoint is no field"),
        (lambda spec, group, container: spec.update(shutdownAfterJobFinishes=False), "needs shutdownAfter"),
        (lambda spec, group, container: spec.update(backoffLimit=-1), "backoffLimit is -1"),
        (lambda spec, group, container: spec["rayClusterSpec"].pop("rayVersion"), "needs rayVersion"),
        (lambda spec, group, container: groups(spec).append(group), "groupName must be unique"),
        (lambda spec, group, container: group.update(groupName="denoise_high"), "groupName is"),
        (lambda spec, group, container: group.update(minReplicas=9), "minReplicas <= replicas"),
        (lambda spec, group, container: group.pop("maxReplicas"), "maxReplicas is missing"),
        (lambda spec, group, container: group["labels"].update({"a b": "c"}), "labels key is 'a b'"),
        (lambda spec, group, container: group["rayStartParams"].update({"num-cpus": 4}), "num-cpus is 4"),
        (
            lambda spec, group, container: group["rayStartParams"].update(labels="a=b"),
            "refused: use the group",
        ),
        (lambda spec, group, container: container["resources"]["limits"].update(memory="64GB"), "'64GB'"),
        (
            lambda spec, group, container: container["resources"]["requests"].pop("nvidia.com/gpu"),
            "GPUs must",
        ),
        (
            lambda spec, group, container: container["volumeMounts"][0].update(name="w"),
            "no volume is called w",
        ),
        (
            lambda spec, group, container: container.update(env=[{"name": "A"}]),
            "must have a value or valueFrom",
        ),
        (lambda spec, group, container: container.update(env=[{"name": "A", "value": 1}]), "value is 1"),
    ],
)
def test_what_kubernetes_refuses_is_found(change, words):
    assert words in edited(change)


def edited_service(change):
    """The problems of a good RayService after `change(spec, its Serve config, the container of its head)`."""
    (document,) = copy.deepcopy(documents(DEPLOY / "kuberay/rayservice-t2v-1.3b.yaml"))
    spec = document["spec"]
    serve_config = yaml.safe_load(spec["serveConfigV2"])
    (container,) = cluster(spec)["headGroupSpec"]["template"]["spec"]["containers"]
    change(spec, serve_config, container)
    spec["serveConfigV2"] = yaml.safe_dump(serve_config)
    return " ".join(problems_of(document))


INCREMENTAL = {"type": "NewClusterWithIncrementalUpgrade"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec, serve, container: None, ""),
        (lambda spec, serve, container: spec.pop("rayClusterConfig"), "rayClusterConfig is missing"),
        (lambda spec, serve, container: spec.update(rayClusterSpec={}), "rayClusterSpec is no field"),
        (lambda spec, serve, container: spec.update(upgradeStrategy={"type": "Rolling"}), "'Rolling'"),
        (lambda spec, serve, container: spec.update(upgradeStrategy=INCREMENTAL), "needs enableInTree"),
        (lambda spec, serve, container: spec.update(rayClusterDeletionDelaySeconds=-1), "Seconds is -1"),
        (lambda spec, serve, container: cluster(spec).pop("rayVersion"), "needs rayVersion"),
        (lambda spec, serve, container: groups(spec)[0].update(minReplicas=9), "minReplicas <= replicas"),
        (lambda spec, serve, container: container["ports"].pop(), "must have a port called serve"),
        (lambda spec, serve, container: serve["http_options"].update(port=80), "http_options.port is 80"),
        (lambda spec, serve, container: spec.update(excludeHeadPodFromServeSvc=True), "leaves no pod"),
        (lambda spec, serve, container: serve.update(proxy_location="Head"), "proxy_location"),
        (lambda spec, serve, container: serve.update(http={}), "http is no field of ServeDeploySchema"),
        (lambda spec, serve, container: serve["http_options"].update(path="/"), "path is no field of HTTP"),
        (lambda spec, serve, container: serve["applications"][0].update(arg={}), "arg is no field of"),
        (lambda spec, serve, container: serve["applications"][0].pop("import_path"), "import_path"),
        (lambda spec, serve, container: serve["applications"].clear(), "applications is empty"),
        (lambda spec, serve, container: serve["applications"].append(serve["applications"][0]), "duplicate"),
    ],
)
def test_what_keeps_an_endpoint_from_answering_is_found(change, words):
    problems = edited_service(change)
    assert words in problems
    assert bool(problems) == bool(words)


@pytest.mark.parametrize("name", ["wanray.t2v", "2v", "w" * 48])
@pytest.mark.parametrize("kind", ["rayjob", "rayservice"])
def test_names_that_kuberay_refuses_are_found(kind, name):
    document = documents(DEPLOY / f"kuberay/{kind}-t2v-1.3b.yaml")[-1]
    document["metadata"]["name"] = name
    assert "must be a DNS label of at most 47 letters" in " ".join(problems_of(document))


def load_job(model, tmp_path) -> RenderConfig:
    """The config in the RayJob for `model`."""
    text, _ = job(model)
    path = tmp_path / "render.yaml"
    path.write_text(text)
    return load_config(path)


def load_service(model) -> RenderConfig:
    """The config in the RayService for `model`."""
    return make_config(arguments(service(model)[0]), "args", needs_manifest=False)


def pools_of(config, folder) -> tuple[PoolSpec, ...]:
    """What a run of this config starts, on the checkpoint in `folder`."""
    checkpoint = open_checkpoint(str(folder), config.model.name)
    placement = choose_placement(config, checkpoint.model)
    notes = check_pools(config, placement, checkpoint.dims, [*pool_experts(placement, checkpoint.model)])
    assert notes == []
    return make_pools(config, checkpoint, {"name": "", "digest": ""}, placement, "run", None)


def nodes_of(spec):
    """What Ray would say of the pods."""
    return [
        {"Alive": True, "Labels": group["labels"], "Resources": limits(group)}
        for group in groups(spec)
        for _ in range(group["replicas"])
    ]


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_groups_hold_the_pools_of_the_config_and_no_more(model, tiny, tmp_path):
    pools = pools_of(load_job(model, tmp_path), tiny(model))
    _, spec = job(model)
    nodes = nodes_of(spec)
    check_fit(pools, Cluster("head", True), nodes)
    for index in range(len(nodes)):
        with pytest.raises(
            EngineError, match=f"{nodes[index]['Labels'][POOL_LABEL].replace('-', '_')} needs"
        ):
            check_fit(pools, Cluster("head", True), nodes[:index] + nodes[index + 1 :])
    assert {tuple(pool.labels.items()) for pool in pools} == {
        tuple(group["labels"].items()) for group in groups(spec)
    }


@pytest.mark.parametrize("model", sorted(MODELS))
def test_an_endpoint_has_the_pools_and_groups_of_the_job(model, tmp_path):
    (_, spec), (_, of_job) = service(model), job(model)
    assert groups(spec) == groups(of_job)
    config, batch = load_service(model), load_job(model, tmp_path)
    for key in ("model", "placement", "denoise", "pools", "faults"):
        assert getattr(config, key) == getattr(batch, key)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_who_answers_lives_on_the_head_and_asks_for_the_token(model):
    serve_config, spec = service(model)
    config, head = load_service(model), cluster(spec)["headGroupSpec"]
    assert config.serve.labels == head["labels"]
    assert not any(group["labels"].items() & head["labels"].items() for group in groups(spec))
    assert serve_config["proxy_location"] == "HeadOnly"
    (container,) = head["template"]["spec"]["containers"]
    (token,) = container["env"]
    assert token["name"] == config.serve.token_env
    assert token["valueFrom"]["secretKeyRef"] == {"name": "wanray-endpoint", "key": "token"}  # not optional
    assert config.claim  # two clusters share the output during an upgrade


def test_the_application_of_an_endpoint_can_be_built(tiny, tmp_path):
    (application,) = service("t2v-a14b")[0]["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    elsewhere = {"model": {"path": str(tiny("t2v-a14b"))}, "output": {"url": str(tmp_path / "out")}}
    assert build(application["args"] | elsewhere) is not None


@pytest.mark.parametrize("model", sorted(MODELS))
def test_times_versions_and_nodes(model, tmp_path):
    drain_s = load_job(model, tmp_path).faults.drain_s
    (_, of_job), (_, of_service) = job(model), service(model)
    for spec in (of_job, of_service):
        head = cluster(spec)["headGroupSpec"]["template"]["spec"]
        assert cluster(spec)["rayVersion"] == version("ray")
        assert not head.keys() & {"nodeSelector", "tolerations"}
        assert drain_s + DRAIN_MARGIN_S < head["terminationGracePeriodSeconds"]
        for group in groups(spec):
            pod = group["template"]["spec"]
            assert pod["terminationGracePeriodSeconds"] > drain_s
            assert ("tolerations" in pod) == ("nodeSelector" in pod) == (limits(group)["GPU"] > 0)
    assert f"ray=={version('ray')}" in (ROOT / "constraints.txt").read_text().splitlines()
    head = cluster(of_job)["headGroupSpec"]["template"]["spec"]
    (wait,) = (item["value"] for item in head["containers"][0]["env"])
    assert drain_s < int(wait) < head["terminationGracePeriodSeconds"]
    assert of_service["rayClusterDeletionDelaySeconds"] > drain_s


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_pods_are_of_the_image_and_hold_no_secrets(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"image: (\S+)", path.read_text())) <= {f"wanray:{project['version']}"}
    variables = re.findall(r"\{name: ([A-Z_]+), value: ", path.read_text())
    assert not [name for name in variables if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]


def test_shared_memory_holds_the_object_store():
    for _, spec in [item for name in MODELS for item in (job(name), service(name))]:
        for group in [cluster(spec)["headGroupSpec"], *groups(spec)]:
            (shm,) = (
                item["emptyDir"] for item in group["template"]["spec"]["volumes"] if item["name"] == "shm"
            )
            size = int(shm["sizeLimit"].removesuffix("Gi")) * 2**30
            assert int(group["rayStartParams"]["object-store-memory"]) < size


INSTRUCTIONS = re.findall(r"^([A-Z]+) ((?:.*\\\n)*.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def test_the_image_copies_what_there_is():
    shown = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    for sources in (words.split()[:-1] for name, words in INSTRUCTIONS if name == "COPY"):
        for source in sources:
            assert (ROOT / source).exists()
            assert f"!{source}" in shown


def test_the_image_installs_what_is_pinned():
    (base,) = (words for name, words in INSTRUCTIONS if name == "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    installs = [
        part
        for name, words in INSTRUCTIONS
        if name == "RUN"
        for part in re.split(r"&&", words)
        if "pip install" in part
    ]
    assert len(installs) == 3
    assert all("-c constraints.txt" in part or "--no-deps" in part for part in installs)
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[\[<>=]", item)[0].replace("_", "-") for item in project["project"]["dependencies"]}
    assert wanted | {"setuptools", "uv"} <= pinned
    assert [words for name, words in INSTRUCTIONS if name == "USER"] == ["1000"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_pages_exist_with_their_options(page):
    asked = 0
    for words in commands(page):
        if words and words[0] in ("ray", "wanray"):
            own = words[: words.index("--")] if "--" in words else words
            size = 3 if own[1] == "job" else 2
            flags = {word.partition("=")[0] for word in own[size:] if word.startswith("--")}
            assert flags <= options(*own[:size]), words
            asked += 1
    assert asked >= (8 if page.parent == DEPLOY else 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_pages_exist(page):
    text = page.read_text()
    for path in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (page.parent / path).exists(), path
    for path in re.findall(r"\b(?:deploy|configs|pipelines)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path


def test_overrides_of_the_pages_are_keys():
    for page in PAGES:
        for words in commands(page):
            overrides = [word for word in words if re.match(r"[a-z_]+(\.[a-z_]+)+=", word)]
            if overrides:
                load_config(ROOT / "configs/t2v-a14b.yaml", overrides)


def leave(kind: str, folder: Path, works: str, busy_s: float) -> tuple[str, str]:
    """leave.sh in a process namespace of its own, as in a pod, beside a process that is called `works`; its
    seconds, and what it told `ray` and `serve`.
    """
    told, worker = folder / "told", folder / "worker"
    worker.write_text(f"exec -a {works} sleep {busy_s}\n")
    for name in ("ray", "serve"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {told}\n')
        (folder / name).chmod(0o755)
    script = f"bash {worker} > /dev/null & sleep 0.3; time {DEPLOY / 'leave.sh'} {kind}"
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "RAY_ADDRESS": "head:6379"}
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-ec",
        f"TIMEFORMAT=%R; {script}",
    ]
    done = run(*command, env=environment)
    if "unshare failed" in done.stderr:
        pytest.skip("process namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
    return done.stderr, told.read_text() if told.exists() else ""


@pytest.mark.parametrize(
    ("kind", "works", "busy_s", "tells"),
    [
        ("worker", "ray::Rank.run", 1.5, "ray drain-node --address=head:6379"),
        ("worker", "ray::Rank", 1.5, "ray drain-node"),  # so called while it stores a state, too
        ("worker", "ray::Rank", 0, ""),
        ("worker", "ray::IDLE", 1.5, ""),
        ("head", "ray::GangPool", 1.5, ""),
        ("head", "ray::ServeReplica:wanray:renderer", 1.5, "serve shutdown --yes"),
        ("head", "ray::ServeReplica:wanray:renderer", 0, ""),
    ],
)
def test_a_pod_drains_and_waits_while_something_works_in_it(kind, works, busy_s, tells, tmp_path):
    seconds, told = leave(kind, tmp_path, works, busy_s)
    assert (float(seconds) > 1) == (busy_s > 0 and works != "ray::IDLE")
    assert told.startswith(tells)
    assert bool(told) == bool(tells)
    if told.startswith("ray"):
        assert set(re.findall(r"--[a-z-]+", told)) <= options("ray", "drain-node")


def test_what_a_head_says_to_serve_can_be_said():
    from ray.serve.scripts import cli

    (words,) = re.findall(r"serve (shutdown.*)$", (DEPLOY / "leave.sh").read_text(), re.MULTILINE)
    name, command, rest = cli.resolve_command(cli.make_context("serve", words.split()), words.split())
    assert command.make_context(name, rest).params["yes"]
