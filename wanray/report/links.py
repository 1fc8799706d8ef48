"""How the page names what lies in the output: relative to where it lies itself, or by presigned URLs."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from wanray.errors import ConfigError
from wanray.storage import Store

_ROOT_FROM_RUN = "../../"
"""From `runs/<run>/` to the output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """The one way from the page to the output."""

    store: Store
    base: str
    """Relative URL of the output, with a slash at its end."""
    presign_s: int | None = None

    def presigned(self, path: str) -> str | None:
        """A URL that works from everywhere; None where the page shall use `base`."""
        return None if self.presign_s is None else self.store.presigned(path, self.presign_s)

    def origin(self) -> str:
        """Scheme and host of presigned URLs, empty without."""
        if self.presign_s is None:
            return ""
        parts = urlsplit(self.store.presigned("runs", self.presign_s))
        return f"{parts.scheme}://{parts.netloc}"


def make_links(store: Store, to: Path | None, presign_s: int | None) -> Links:
    """The links of a page at `to`; None: at `runs/<run>/` of the output.

    Raises:
        ConfigError: nothing that the page shows could be reached from there.
    """
    if to is None or presign_s is not None:
        return Links(store=store, base=_ROOT_FROM_RUN, presign_s=presign_s)
    if store.is_remote:
        raise ConfigError(f"-o {to}: a page outside of {store.url} needs --presign, such as --presign 24h")
    base = Path(os.path.relpath(store.url, to.absolute().parent)).as_posix()
    return Links(store=store, base=f"{quote(base)}/")
