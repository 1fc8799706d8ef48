"""What Kubernetes and KubeRay refuse in our manifests, as far as it can be told without a cluster.

A rule is a type, a pattern, a tuple of allowed values, a list of one rule (a list of such), a mapping of
field names (with ! where required) to rules, or an `Each` (free keys). Unknown fields are problems, because a
server drops them in silence. Of `ray.io/v1` the fields are those of KubeRay 1.6, of pods those that we use.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1035: no dots, and a letter first."""
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?|Ki)?")
LABEL_KEY = re.compile(rf"({DNS_NAME.pattern}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
PATH = re.compile(r"/\S*")
LONGEST_NAME = 47
"""Of a RayJob or RayService: KubeRay adds to it to name the cluster."""
SERVE_PORT = 8000
"""Where a Serve config and a container say nothing."""


class Each(NamedTuple):
    """A mapping whose keys are ours to choose."""

    key: Any
    value: Any


LABELS, TEXTS = Each(LABEL_KEY, LABEL_VALUE), Each(str, str)
METADATA = {"name!": DNS_NAME, "labels": LABELS, "annotations": Each(LABEL_KEY, str)}
SECRET_KEY = {"name!": DNS_NAME, "key!": str, "optional": bool}
ENV = {"name!": VARIABLE, "value": str, "valueFrom": {"secretKeyRef": SECRET_KEY}}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": bool,
    "capabilities": {"drop": [str], "add": [str]},
    "readOnlyRootFilesystem": bool,
}
AMOUNTS = Each(LABEL_KEY, QUANTITY)
CONTAINER = {
    "name!": DNS_LABEL,
    "image!": str,
    "command": [str],
    "ports": [{"name": PORT_NAME, "containerPort!": int}],
    "env": [ENV],
    "envFrom": [{"secretRef!": {"name!": DNS_NAME, "optional": bool}}],
    "lifecycle": {"preStop!": {"exec!": {"command!": [str]}}},
    "resources!": {"requests!": AMOUNTS, "limits!": AMOUNTS},
    "securityContext": CONTAINER_SECURITY,
    "volumeMounts": [{"name!": DNS_LABEL, "mountPath!": PATH, "subPath": str, "readOnly": bool}],
}
VOLUME = {
    "name!": DNS_LABEL,
    "configMap": {"name!": DNS_NAME},
    "persistentVolumeClaim": {"claimName!": DNS_NAME, "readOnly": bool},
    "emptyDir": {"medium": ("", "Memory"), "sizeLimit": QUANTITY},
}
TOLERATION = {
    "key": LABEL_KEY,
    "operator": ("Exists", "Equal"),
    "value": LABEL_VALUE,
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}
POD = {
    "serviceAccountName": DNS_NAME,
    "terminationGracePeriodSeconds": int,
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "nodeSelector": LABELS,
    "tolerations": [TOLERATION],
    "securityContext": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "fsGroup": int,
        "seccompProfile": {"type!": ("RuntimeDefault", "Unconfined", "Localhost")},
    },
    "containers!": [CONTAINER],
    "volumes": [VOLUME],
}
TEMPLATE = {"metadata": {"labels": LABELS, "annotations": Each(LABEL_KEY, str)}, "spec!": POD}
GROUP = {"rayStartParams!": TEXTS, "labels": LABELS, "resources": TEXTS, "template!": TEMPLATE}
WORKER_GROUP = GROUP | {
    "groupName!": DNS_LABEL,
    "replicas": int,
    "minReplicas!": int,
    "maxReplicas!": int,
    "numOfHosts": int,
    "idleTimeoutSeconds": int,
}
HEAD_GROUP = GROUP | {"serviceType": ("ClusterIP", "NodePort", "LoadBalancer"), "enableIngress": bool}
RAY_CLUSTER = {
    "rayVersion": re.compile(r"\d+\.\d+\.\d+"),
    "authOptions": {"mode": ("disabled", "token"), "secretName": DNS_NAME},
    "enableInTreeAutoscaling": bool,
    "headGroupSpec!": HEAD_GROUP,
    "workerGroupSpecs": [WORKER_GROUP],
}
RAY_JOB = {
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "entrypoint": str,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "suspend": bool,
    "rayClusterSpec": RAY_CLUSTER,
}
RAY_SERVICE = {
    "serveConfigV2": str,
    "rayClusterConfig!": RAY_CLUSTER,
    "upgradeStrategy": {
        "type": ("NewCluster", "NewClusterWithIncrementalUpgrade", "None"),
        "clusterUpgradeOptions": {
            "maxSurgePercent": int,
            "stepSizePercent!": int,
            "intervalSeconds!": int,
            "gatewayClassName!": str,
        },
    },
    "rayClusterDeletionDelaySeconds": int,
    "excludeHeadPodFromServeSvc": bool,
}
SELECTOR = {
    "matchLabels": LABELS,
    "matchExpressions": [{"key!": LABEL_KEY, "operator!": ("In", "NotIn", "Exists", "DoesNotExist")}],
}
ENDPOINT = {"port!": PORT_NAME, "interval": re.compile(r"\d+[smh]")}
CLAIM = {
    "accessModes!": [("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")],
    "resources!": {"requests!": AMOUNTS},
}
BATCH_JOB = {"backoffLimit": int, "ttlSecondsAfterFinished": int, "template!": TEMPLATE}
KINDS = {
    ("v1", "ConfigMap"): {"data!": TEXTS},
    ("v1", "ServiceAccount"): {},
    ("v1", "PersistentVolumeClaim"): {"spec!": CLAIM},
    ("batch/v1", "Job"): {"spec!": BATCH_JOB},
    ("policy/v1", "PodDisruptionBudget"): {"spec!": {"maxUnavailable": int, "selector!": SELECTOR}},
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "spec!": {"selector!": SELECTOR, "podTargetLabels": [LABEL_KEY], "podMetricsEndpoints!": [ENDPOINT]}
    },
    ("ray.io/v1", "RayJob"): {"spec!": RAY_JOB},
    ("ray.io/v1", "RayService"): {"spec!": RAY_SERVICE},
}


def problems_of(document: dict[str, Any]) -> list[str]:
    """All that is wrong with one object of a manifest, each with its place."""
    kind = str(document.get("apiVersion")), str(document.get("kind"))
    if kind not in KINDS:
        return [f"no rules for {kind}"]
    rule = {"apiVersion!": str, "kind!": str, "metadata!": METADATA, **KINDS[kind]}
    found = list(_shape(document, rule, kind[1]))
    if not found and kind == ("ray.io/v1", "RayJob"):
        found += _job_problems(document)
    if not found and kind == ("ray.io/v1", "RayService"):
        found += _service_problems(document)
    if not found and kind == ("batch/v1", "Job"):
        found += _pod_problems(document["spec"]["template"]["spec"], "Job")
    return found


def _shape(value: Any, rule: Any, place: str) -> Iterator[str]:
    if isinstance(rule, dict | Each) and not isinstance(value, dict):
        yield f"{place} must be a mapping, got {value!r}"
    elif isinstance(rule, dict):
        yield from _fields(value, rule, place)
    elif isinstance(rule, Each):
        for key, item in value.items():
            yield from _shape(key, rule.key, f"{place} key")
            yield from _shape(item, rule.value, f"{place}.{key}")
    elif isinstance(rule, list):
        yield from _items(value, rule[0], place)
    elif not _fits(value, rule):
        yield f"{place} is {value!r}, which is not {rule}"


def _fields(value: dict[str, Any], rule: dict[str, Any], place: str) -> Iterator[str]:
    rules = {name.rstrip("!"): item for name, item in rule.items()}
    for name in (name[:-1] for name in rule if name.endswith("!")):
        if name not in value:
            yield f"{place}.{name} is missing"
    for name, item in value.items():
        if name in rules:
            yield from _shape(item, rules[name], f"{place}.{name}")
        else:
            yield f"{place}.{name} is no field"


def _items(value: Any, rule: Any, place: str) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        yield f"{place} must be a list of something, got {value!r}"
        return
    for index, item in enumerate(value):
        yield from _shape(item, rule, f"{place}[{index}]")


def _fits(value: Any, rule: Any) -> bool:
    if isinstance(rule, re.Pattern):
        return isinstance(value, str) and bool(rule.fullmatch(value))
    if isinstance(rule, tuple):
        return value in rule
    if rule is int:
        return type(value) is int and value >= 0
    return isinstance(value, rule)


def _job_problems(document: dict[str, Any]) -> Iterator[str]:
    """What KubeRay's operator refuses beyond the schema."""
    spec = document["spec"]
    yield from _name_problems(document)
    if spec.get("activeDeadlineSeconds") == 0:
        yield "RayJob.spec.activeDeadlineSeconds must be positive"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "RayJob.spec.ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if "rayClusterSpec" in spec:
        yield from _cluster_problems(spec["rayClusterSpec"])
    else:
        yield "RayJob.spec.rayClusterSpec is missing"


def _service_problems(document: dict[str, Any]) -> Iterator[str]:
    """What KubeRay's operator refuses beyond the schema, and what leaves the endpoint without a way in."""
    spec = document["spec"]
    cluster = spec["rayClusterConfig"]
    yield from _name_problems(document)
    yield from _cluster_problems(cluster)
    strategy = spec.get("upgradeStrategy", {})
    if strategy.get("type") == "NewClusterWithIncrementalUpgrade":
        if not cluster.get("enableInTreeAutoscaling"):
            yield "upgradeStrategy: NewClusterWithIncrementalUpgrade needs enableInTreeAutoscaling"
        if "clusterUpgradeOptions" not in strategy:
            yield "upgradeStrategy: NewClusterWithIncrementalUpgrade needs clusterUpgradeOptions"
    found = list(_serve_problems(spec.get("serveConfigV2", "")))
    yield from found
    if not found:
        yield from _way_in_problems(spec, yaml.safe_load(spec["serveConfigV2"]))


def _serve_problems(text: str) -> Iterator[str]:
    """Of the config that the operator hands to Ray Serve, which drops unknown keys in silence."""
    from pydantic import ValidationError
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    try:
        config = yaml.safe_load(text)
        ServeDeploySchema.model_validate(config)
    except (yaml.YAMLError, ValidationError, ValueError) as error:
        yield f"serveConfigV2: {error}"
        return
    if not config["applications"]:
        yield "serveConfigV2.applications is empty, and the endpoint never ready"
    parts = [(config, ServeDeploySchema), (config.get("http_options", {}), HTTPOptionsSchema)]
    for part, schema in [*parts, *((item, ServeApplicationSchema) for item in config["applications"])]:
        for name in part.keys() - schema.model_fields.keys():
            yield f"serveConfigV2: {name} is no field of {schema.__name__}"


def _way_in_problems(spec: dict[str, Any], serve_config: dict[str, Any]) -> Iterator[str]:
    """Requests come through KubeRay's service to pods with an HTTP proxy of Ray Serve."""
    (container, *_) = spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    wanted = serve_config.get("http_options", {}).get("port", SERVE_PORT)
    if ports and "serve" not in ports:
        yield "the head's container must have a port called serve, or there is no service"
    elif ports.get("serve", SERVE_PORT) != wanted:
        yield f"the head's port serve is {ports.get('serve')}, but http_options.port is {wanted}"
    location = serve_config.get("proxy_location", "EveryNode")
    if location == "Disabled" or (location == "HeadOnly" and spec.get("excludeHeadPodFromServeSvc")):
        yield f"proxy_location {location} leaves no pod for the service"


def _name_problems(document: dict[str, Any]) -> Iterator[str]:
    kind, name = document["kind"], document["metadata"]["name"]
    if not DNS_LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        yield f"{kind} name {name!r} must be a DNS label of at most {LONGEST_NAME} letters"


def _cluster_problems(cluster: dict[str, Any]) -> Iterator[str]:
    if cluster.get("authOptions", {}).get("mode") == "token" and "rayVersion" not in cluster:
        yield "authOptions.mode token needs rayVersion"
    groups = cluster.get("workerGroupSpecs", [])
    names = [group["groupName"] for group in groups]
    if len(set(names)) < len(names):
        yield f"groupName must be unique, got {names}"
    for group, place in [(cluster["headGroupSpec"], "head"), *zip(groups, names, strict=True)]:
        yield from _group_problems(group, place)


def _group_problems(group: dict[str, Any], place: str) -> Iterator[str]:
    params = group["rayStartParams"]
    if "labels" in params:
        yield f"{place}: rayStartParams.labels is refused: use the group's labels"
    if "resources" in group and params.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
        yield f"{place}: resources stand in the group and in rayStartParams"
    if "groupName" in group:
        smallest, number, largest = (group[key] for key in ("minReplicas", "replicas", "maxReplicas"))
        if not smallest <= number <= largest:
            yield f"{place}: minReplicas <= replicas <= maxReplicas does not hold"
    yield from _pod_problems(group["template"]["spec"], place)


def _pod_problems(pod: dict[str, Any], place: str) -> Iterator[str]:
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    if len(set(volumes)) < len(volumes):
        yield f"{place}: volumes must have names of their own, got {volumes}"
    for volume in pod.get("volumes", []):
        if len(volume) != 2:
            yield f"{place}: volume {volume['name']} must have one source"
    for container in pod["containers"]:
        mounts = container.get("volumeMounts", [])
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"{place}: no volume is called {mount['name']}"
        if len({mount["mountPath"] for mount in mounts}) < len(mounts):
            yield f"{place}: two volumes are mounted at one path"
        ports = [port["containerPort"] for port in container.get("ports", [])]
        if len(set(ports)) < len(ports) or not all(0 < port < 65536 for port in ports):
            yield f"{place}: ports {ports}"
        for item in container.get("env", []):
            if ("value" in item) == ("valueFrom" in item):
                yield f"{place}: variable {item['name']} must have a value or valueFrom"
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        if requests.get("nvidia.com/gpu") != limits.get("nvidia.com/gpu"):
            yield f"{place}: GPUs must be requested as they are limited"
