"""The only file that asks Ray's private packaging: which files of a working_dir Ray would upload."""

import logging
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, _dir_travel, _get_excludes

MAX_UPLOAD_BYTES: int = GCS_STORAGE_MAX_SIZE
"""What the head stores of one folder."""
_quiet = logging.getLogger(f"{__name__}.quiet")
_quiet.setLevel(logging.ERROR)  # Ray would say that it heeds .gitignore


def uploaded_files(folder: Path, excludes: list[str]) -> dict[Path, int]:
    """Relative path -> bytes of what is left after .gitignore, .rayignore, `excludes` and Ray's own."""
    found: dict[Path, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder)] = path.stat().st_size

    skipped = _get_excludes(folder, [*get_runtime_env_default_excludes(), *excludes])
    _dir_travel(folder, [skipped], note, include_gitignore=True, logger=_quiet)
    return found
