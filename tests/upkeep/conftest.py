"""An output that was really rendered, copied for each test to a folder or a bucket of its own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wanray.config import load_config
from wanray.engine.job import execute
from wanray.engine.prepare import prepare
from wanray.errors import ExitCode
from wanray.sinks.ledger import Ledger
from wanray.storage import Store

ROWS = [{"id": f"r{number}", "prompt": f"a cat {number}", "seed": number} for number in range(3)]
BAD_ROW = {"id": "bad", "prompt": "a dog", "width": 63}
SETTINGS = {
    "engine": "local",
    "run": "first",
    "numerics": {"dtype": "float32"},
    "defaults": {"width": 64, "height": 48, "num_frames": 5, "steps": 2},
}


@dataclass(frozen=True)
class Output:
    """An output and the config that rendered it."""

    url: str
    config: Path
    folder: Path
    """For what a test writes."""
    store: Store

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store)

    @property
    def keys(self) -> list[str]:
        return sorted(key.hex() for key in self.ledger.committed_keys(set()))

    def meta(self, key: str) -> dict[str, Any]:
        meta = self.ledger.read_meta(key)
        assert meta is not None
        return meta

    def tree(self) -> dict[str, bytes]:
        return {path: self.store.read(path) for path in self.store.find("")}

    def render(self, run: str = "again") -> Any:
        """The same command once more; its summary."""
        values = [f"output.url={self.url}", f"run={run}"]
        return execute(prepare(load_config(self.config, values), write=True))


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]) -> Path:
    """Three clips with latents, and a bad row: `config.yaml` and `out/`."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, [*ROWS, BAD_ROW])))
    values = {"manifest": str(folder / "rows.jsonl"), "model": {"path": str(tiny("t2v-1.3b"))}}
    values |= SETTINGS | {"output": {"url": str(folder / "out"), "save_latents": True}}
    (folder / "config.yaml").write_text(json.dumps(values))
    summary = execute(prepare(load_config(folder / "config.yaml", []), write=True))
    assert (summary.committed, summary.exit_code) == (3, ExitCode.FAILURES)
    return folder


@pytest.fixture
def local_output(rendered: Path, tmp_path: Path) -> Output:
    """A copy in a folder."""
    shutil.copytree(rendered / "out", tmp_path / "out")
    url = str(tmp_path / "out")
    return Output(url, rendered / "config.yaml", tmp_path, Store.open(url))


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, rendered: Path, tmp_path: Path) -> Output:
    """A copy in a folder, and one in a bucket."""
    if request.param == "local":
        return request.getfixturevalue("local_output")
    url = request.getfixturevalue("s3_url")
    store = Store.open(url)
    for path in (rendered / "out").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(rendered / "out").as_posix(), path.read_bytes())
    return Output(url, rendered / "config.yaml", tmp_path, store)
