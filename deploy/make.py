"""Writes deploy/kuberay/rayjob-*.yaml and rayservice-*.yaml, one of each per model, from deploy/template/.

Knows which pools a model gets and what a pod of each holds. A pod is a gang: spot nodes then go one by one.
"""

from dataclasses import dataclass
from pathlib import Path
from string import Template

from wanray.registry import MODELS, Model

HERE = Path(__file__).parent
IMAGE = "wanray:0.1.0"
LARGE_DIM = 5120
"""Models at least so wide need 80 GB per rank."""
LARGE_GPU, SMALL_GPU = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"
"""Values of the node label that NVIDIA's GPU feature discovery sets."""
GANGS = {
    "t2v-a14b": {"denoise_high": 4, "denoise_low": 2},  # of 40 steps the high-noise expert does 26
    "i2v-a14b": {"denoise_high": 2, "denoise_low": 4},  # and here 15
}
"""Where gangs are not six of one kind."""
ENCODED_ON_CPU = {"ti2v-5b"}
"""Of the models with media, those whose media are cheap: one picture of few latents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of manifest; `template/KIND.yaml` is the rest of it."""

    title: str
    indent: int
    """Of the config in the file."""
    first: tuple[str, ...]
    """Lines of the config before those that all kinds have."""
    then: tuple[str, ...] = ()
    """Lines after those, before the pools."""
    labels: str = ""
    """Of the head's node; as all below a line, where the kind has one."""
    port: str = ""
    env: str
    mount: str = ""
    volume: str = ""


KINDS = {
    "rayjob": Kind(
        title="Renders with",
        indent=4,
        first=("manifest: s3://my-bucket/prompts.parquet", "output: {url: s3://my-bucket/night-1}"),
        env='{name: RAY_JOB_STOP_WAIT_TIME_S, value: "150"}  # Ray\'s own 3 s are too few to drain',
        mount="{name: config, mountPath: /etc/wanray}",
        volume="{name: config, configMap: {name: $name}}",
    ),
    "rayservice": Kind(
        title="Answers requests with",
        indent=10,
        first=("output: {url: s3://my-bucket/online}",),
        then=(
            "claim: true  # while one cluster takes over from another, each takes what the other has not",
            "serve: {labels: {wanray.io/pool: head}, token_env: WANRAY_TOKEN}",
        ),
        labels="{wanray.io/pool: head}  # as serve.labels",
        port="{name: serve, containerPort: 8000}",
        env="{name: WANRAY_TOKEN, valueFrom: {secretKeyRef: {name: wanray-endpoint, key: token}}}",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A pool of the config, and the worker group whose pods hold it."""

    pool: str
    count: int
    """Gangs or workers."""
    gpu_product: str | None
    """None: a CPU pod."""
    num_cpus: int
    """Of one gang or worker."""
    memory_gib: int
    """Of one pod, shared memory included."""
    per_pod: int = 1

    @property
    def name(self) -> str:
        """Of the worker group; also its label."""
        return self.pool.replace("_", "-")

    def settings(self) -> str:
        """The pool's entry in the config."""
        number = "gangs" if self.pool.startswith("denoise") else "workers"
        gpu = "GPU: 1, " if self.gpu_product else ""
        resources = f"resources: {{{gpu}CPU: {self.num_cpus}}}"
        return (
            f"{self.pool}: {{{number}: {self.count}, {resources}, labels: {{wanray.io/pool: {self.name}}}}}"
        )


def groups_of(model: Model) -> list[Group]:
    """The groups of one cluster, in the order of the data flow."""
    large = model.dims.dim >= LARGE_DIM
    gangs = GANGS.get(model.name, {"denoise": 6})
    denoise = [
        Group(
            pool=pool,
            count=count,
            gpu_product=LARGE_GPU if large else SMALL_GPU,
            num_cpus=4,
            memory_gib=80 if large else 32,  # weights in Diffusers layout pass through host memory
        )
        for pool, count in gangs.items()
    ]
    decode = Group(pool="decode", count=1, gpu_product=SMALL_GPU, num_cpus=8, memory_gib=48)
    return [_encode(model), *denoise, decode]


def _folder(model: Model) -> str:
    return model.repository.partition("/")[2]


def _encode(model: Model) -> Group:
    if model.inputs and model.name not in ENCODED_ON_CPU:
        return Group(pool="encode", count=1, gpu_product=SMALL_GPU, num_cpus=4, memory_gib=48)
    return Group(pool="encode", count=2, gpu_product=None, num_cpus=8, memory_gib=64, per_pod=2)


def render(kind: str, model: Model, ray_version: str) -> str:
    """The file of this kind for `model`."""
    groups, own = groups_of(model), KINDS[kind]
    name = f"wanray-{model.name.replace('.', '-')}"  # Kubernetes allows no dots there
    return _fill(
        kind,
        title=f"{own.title} {model.name} ({_folder(model)}).",
        name=name,
        config="".join(f"{' ' * own.indent}{line}\n" for line in _config(own, model, groups)).rstrip(),
        cluster=_fill(
            "cluster",
            model=model.name,
            image=IMAGE,
            ray_version=ray_version,
            **_head(own, name),
            groups="".join(_group(model, group) for group in groups).rstrip(),
        ).rstrip(),
    )


def _config(kind: Kind, model: Model, groups: list[Group]) -> list[str]:
    shares_weights = sum(other.repository == model.repository for other in MODELS.values()) > 1
    name = f", name: {model.name}" if shares_weights else ""
    return [
        *kind.first,
        f"model: {{path: /weights/{_folder(model)}{name}}}",
        *(["placement: split"] if len(model.experts) > 1 else []),
        "denoise: {checkpoint_every_steps: 10}  # what a lost spot node costs at most",
        *kind.then,
        "pools:",
        *(f"  {group.settings()}" for group in groups),
    ]


def _head(kind: Kind, name: str) -> dict[str, str]:
    """Whole lines of the head's group."""
    return {
        "labels": f"      labels: {kind.labels}\n" if kind.labels else "",
        "env": f"                - {kind.env}\n",
        "port": f"                - {kind.port}\n" if kind.port else "",
        "mount": f"                - {kind.mount}\n" if kind.mount else "",
        "volume": f"            - {Template(kind.volume).substitute(name=name)}\n" if kind.volume else "",
    }


def _group(model: Model, group: Group) -> str:
    cpus = group.num_cpus * group.per_pod
    gpu = ', nvidia.com/gpu: "1"' if group.gpu_product else ""
    return _fill(
        "group",
        name=group.name,
        replicas=group.count // group.per_pod,
        model=model.name,
        image=IMAGE,
        place=_fill("place", gpu_product=group.gpu_product) if group.gpu_product else "",
        resources=f'{{cpu: "{cpus}", memory: {group.memory_gib}Gi{gpu}}}',
    )


def _fill(template: str, **values: object) -> str:
    return Template((HERE / f"template/{template}.yaml").read_text()).substitute(values)


def ray_version() -> str:
    """The one that constraints.txt pins."""
    lines = (HERE.parent / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix("ray==") for line in lines if line.startswith("ray=="))


if __name__ == "__main__":
    for kind in KINDS:
        for row in MODELS.values():
            (HERE / f"kuberay/{kind}-{row.name}.yaml").write_text(render(kind, row, ray_version()))
