"""The secret by which a Ray cluster knows its users: found where Ray itself looks for it, and never shown.

Ray: https://docs.ray.io/en/latest/ray-security/token-auth.html
"""

import os
from pathlib import Path

from wanray.errors import ConfigError

HOW = "put the cluster's token (on its head: `ray get-auth-token`) into ~/.ray/auth_token or RAY_AUTH_TOKEN"


def find_token() -> str | None:
    """The token, unless RAY_AUTH_MODE says that none is used; None where there is none.

    Raises:
        ConfigError: RAY_AUTH_TOKEN_PATH names a file that cannot be read.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        if named is None:
            return None
        raise ConfigError(f"RAY_AUTH_TOKEN_PATH names {file}, which does not exist: {HOW}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the token file {file} cannot be read ({type(error).__name__}): make it readable, or {HOW}"
        ) from None
