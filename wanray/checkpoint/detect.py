"""Opening a checkpoint folder without torch: layout, model, sizes, completeness. Loads no weights."""

from pathlib import Path

from wanray.checkpoint import diffusers, official
from wanray.checkpoint.contents import Checkpoint
from wanray.checkpoint.identify import identify
from wanray.errors import ConfigError

ADVICE = "name a checkpoint folder in Diffusers layout or in the official one"


def open_checkpoint(path: str, name: str | None = None) -> Checkpoint:
    """Inspect the folder `path`; `name` chooses among the models that its files can be.

    Raises:
        ConfigError: the folder is missing, of another layout, incomplete, or of an unknown or another model.
    """
    folder = Path(path).absolute()
    layout = diffusers if _has_index(folder) else official
    found = layout.inspect(folder)
    model = identify(folder, found, name)
    return layout.open_parts(folder, model, found.dims)


def _has_index(folder: Path) -> bool:
    if not folder.is_dir():
        raise ConfigError(f"model.path {folder} is no local folder: {ADVICE}")
    if (folder / diffusers.INDEX).is_file():
        return True
    if (folder / official.FOLDERS["high"]).is_dir() or (folder / "config.json").is_file():
        return False
    raise ConfigError(
        f"model.path {folder} has no {diffusers.INDEX} and neither {official.FOLDERS['high']}/ nor "
        f"config.json: {ADVICE}"
    )
