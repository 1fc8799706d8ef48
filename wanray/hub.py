"""Where a checkpoint lies: a local folder, or a repository on a hub, downloaded to the hub's own cache.

    folder, ./folder, /abs/folder      local; an existing folder always wins
    owner/name, hf://owner/name[@rev]  Hugging Face (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE as usual)
    modelscope://owner/name[@rev]      ModelScope (needs the extra `modelscope`)

Knows nothing of what is in a checkpoint but which files no render needs. Importing it opens no connection.
"""

import importlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wanray.errors import ConfigError

logger = logging.getLogger(__name__)

NEEDED = ("*.json", "*.safetensors", "*.pth", "*.model")
NOT_NEEDED = ("assets/*", "examples/*", "xlm-roberta-large/*", "process_checkpoint/*")
"""Pictures, and folders that only training or other tools read."""
COPY = "copy the folder here and name it"

_ID = r"(?P<id>(?!\S*(--|\.\.))\w[\w.-]{0,94}/\w([\w.-]{0,94}\w)?(?<!\.git))"
_BARE = re.compile(_ID, re.ASCII)
_URL = re.compile(rf"(?P<scheme>hf|modelscope)://{_ID}(@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A place on a hub."""

    scheme: str
    """`hf` or `modelscope`."""
    id: str
    """`owner/name`."""
    revision: str | None = None
    """A branch, tag or commit; None: the hub's default branch."""
    is_url: bool = True
    """Whether the user wrote the scheme, and so cannot have meant a folder."""
    key: str = "model.path"
    """Where the user wrote it."""


def resolve(path: str, key: str = "model.path") -> str:
    """The local folder of the checkpoint that `path`, the value of `key`, names; downloaded first if it lies
    on a hub.

    What is in the hub's cache is not downloaded again, and serves when the hub cannot be reached.

    Raises:
        ConfigError: no such folder or repository, no access to it, or the hub cannot be reached.
    """
    if Path(path).exists():
        return path
    repository = parse(path)
    if repository is None:
        raise ConfigError(
            f"{key} {path} does not exist: name a checkpoint folder, a repository such as "
            "Wan-AI/Wan2.1-T2V-1.3B, or hf://owner/name[@revision] or modelscope://owner/name[@revision]"
        )
    fetch = {"hf": _from_hugging_face, "modelscope": _from_modelscope}[repository.scheme]
    return fetch(replace(repository, key=key))


def parse(path: str) -> Repository | None:
    """The repository that `path` has the form of; None for what can only be a local path."""
    if found := _BARE.fullmatch(path):
        return Repository(scheme="hf", id=found["id"], is_url=False)
    if found := _URL.fullmatch(path):
        return Repository(scheme=found["scheme"], id=found["id"], revision=found["revision"])
    return None


def _from_hugging_face(repository: Repository) -> str:
    from huggingface_hub import HfApi, constants, snapshot_download

    # The base of what its HTTP client raises, whichever client that is.
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    hub = f"the Hugging Face hub ({constants.ENDPOINT})"
    wanted: dict[str, Any] = {"revision": repository.revision, "allow_patterns": [*NEEDED]}
    wanted["ignore_patterns"] = [*NOT_NEEDED]
    try:
        # snapshot_download asks the same without a time limit
        HfApi().model_info(repository.id, revision=repository.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (OSError, HTTPError) as error:
        try:
            folder = snapshot_download(repository.id, local_files_only=True, **wanted)
        except LocalEntryNotFoundError:
            raise ConfigError(_explain(repository, hub, error)) from error
        logger.warning("%s is taken from the cache: %s", repository.id, _reason(error))
        return folder
    logger.info("fetching %s from %s, as far as it is not in %s", repository.id, hub, constants.HF_HUB_CACHE)
    try:
        return snapshot_download(repository.id, **wanted)
    except (OSError, HTTPError) as error:
        raise ConfigError(
            f"{repository.key} {repository.id}: its download from {hub} to {constants.HF_HUB_CACHE} broke "
            f"off ({_reason(error)}): the same command continues it"
        ) from error


def _explain(repository: Repository, hub: str, error: Exception) -> str:
    """The message for a repository that neither the hub gives nor the cache holds."""
    from huggingface_hub import errors

    local = "" if repository.is_url else f"{Path(repository.id).absolute()} is no local folder, and "
    if isinstance(error, errors.GatedRepoError):
        text = f"{hub} gives {repository.id} only to those who accepted its terms"
        remedy = "accept them on its page, then set HF_TOKEN to a token of that account"
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = f"{hub} has no public repository {repository.id}"
        remedy = f"{COPY}, or correct the name; set HF_TOKEN if it is private"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"{hub} has no revision {repository.revision} of {repository.id}"
        remedy = "correct what follows the @"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        text = f"the cache does not hold (all of) {repository.id}, and HF_HUB_OFFLINE forbids to ask {hub}"
        remedy = f"{COPY}, or unset HF_HUB_OFFLINE"
    else:
        text = f"the cache does not hold {repository.id}, and {hub} could not be reached ({_reason(error)})"
        remedy = f"check the connection and HF_ENDPOINT, or {COPY}"
    return f"{repository.key} {local}{text}: {remedy}"


def _from_modelscope(repository: Repository) -> str:
    try:
        download = importlib.import_module("modelscope").snapshot_download
    except ImportError as error:
        raise ConfigError(
            f"{repository.key} modelscope://{repository.id} needs the package modelscope, which does not "
            f"import ({error}): pip install 'wanray[modelscope]', or {COPY}"
        ) from error
    patterns = {"allow_patterns": [*NEEDED], "ignore_patterns": [*NOT_NEEDED]}
    try:
        return download(repository.id, revision=repository.revision, **patterns)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{repository.key} modelscope://{repository.id} could not be downloaded from ModelScope "
            f"({_reason(error)}): check name and connection, or {COPY}"
        ) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
