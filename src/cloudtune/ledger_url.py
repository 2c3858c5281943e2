"""The ledger's URL: whether it holds a password, and how it is shown."""

from __future__ import annotations

import re

from cloudtune.redact import MASK, masked, url_password

# Broader than a URL parser: a password with an unescaped `/`, `@` or `[` must be found as well. Everything between the
# first colon after the user's name and the last @ counts.
_PASSWORD = re.compile(r"(?<=://)([^:/?#@\s]*):(.*)@", re.DOTALL)
_PARAMETER = re.compile(r"((?:password|passwd|secret|token)\w*\s*=\s*)('[^']*'|[^&\s]+)", re.IGNORECASE)


def holds_password(url: str) -> bool:
    """Whether a ledger's URL, or a connection string in its place, holds a password."""
    return bool(url_password(url) or _PASSWORD.search(url) or _PARAMETER.search(url))


def shown(url: str) -> str:
    """The URL with every password masked."""
    text = _PARAMETER.sub(rf"\g<1>{MASK}", _PASSWORD.sub(rf"\g<1>:{MASK}@", url))
    return str(masked("ledger", text))
