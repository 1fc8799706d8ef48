"""What deploy/ holds, as the tests read it: manifests, their configs and groups, commands of the pages."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGES = (DEPLOY / "README.md", ROOT / "docs/cluster.md")
POOL_LABEL = "wanray.io/pool"


def load_make() -> Any:
    """deploy/make.py as a module; it is a script, not part of the package."""
    spec = importlib.util.spec_from_file_location("deploy_make", DEPLOY / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(path: Path) -> list[dict[str, Any]]:
    """All objects of a manifest."""
    return list(yaml.safe_load_all(path.read_text()))


def job(model: str) -> tuple[str, dict[str, Any]]:
    """The config (YAML) and the spec of the RayJob for `model`."""
    config, ray_job = documents(DEPLOY / f"kuberay/rayjob-{model}.yaml")
    return config["data"]["render.yaml"], ray_job["spec"]


def service(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config that Ray Serve gets, and the spec of the RayService for `model`."""
    (ray_service,) = documents(DEPLOY / f"kuberay/rayservice-{model}.yaml")
    return yaml.safe_load(ray_service["spec"]["serveConfigV2"]), ray_service["spec"]


def arguments(serve_config: dict[str, Any]) -> dict[str, Any]:
    """The config of wanray in that of Ray Serve."""
    (application,) = serve_config["applications"]
    return application["args"]


def cluster(spec: dict[str, Any]) -> dict[str, Any]:
    """The RayCluster of a RayJob or a RayService."""
    return spec["rayClusterSpec" if "rayClusterSpec" in spec else "rayClusterConfig"]


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The worker groups of a RayJob or a RayService."""
    return cluster(spec)["workerGroupSpecs"]


def limits(group: dict[str, Any]) -> dict[str, float]:
    """CPUs and GPUs that Ray counts on a pod of the group."""
    (container,) = group["template"]["spec"]["containers"]
    amounts = container["resources"]["limits"]
    return {"CPU": float(amounts["cpu"]), "GPU": float(amounts.get("nvidia.com/gpu", 0))}


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the fenced blocks of a page, without variables and comments."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    text = "".join(block for language, block in blocks if not language).replace("\\\n", " ")
    lines = [line.partition(" | ")[0] for line in text.splitlines() if line.strip()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in words if not re.match(r"[A-Z_]+=", word)] for words in found]


def options(*words: str) -> set[str]:
    """What the command `ray ...` or `wanray ...` takes, hidden options included."""
    from ray.scripts.scripts import cli as ray
    from typer.main import get_command

    from wanray.cli import app

    command: Any = {"ray": ray, "wanray": get_command(app)}[words[0]]
    for word in words[1:]:
        command = command.commands[word]
    return {name for option in command.params for name in option.opts}
