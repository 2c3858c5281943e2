"""The ledger's URL: password detection and masking."""

from __future__ import annotations

import re

from cloudtune.redaction.masking import masked, url_password
from cloudtune.secret_shapes import MASK

# Broader than a URL parser, which misses a password with an unescaped `/`, `@` or `[`: everything from the
# first colon after the user's name to the last @.
_PASSWORD = re.compile(r"\A((?:[a-z][a-z0-9+.-]*)?:/*)?([^:/?#@\s]*):(?!//)(.+)@", re.DOTALL | re.IGNORECASE)
_PORT = re.compile(r"\d{1,5}(?:/|\Z)")
_PARAMETER = re.compile(r"((?:password|passwd|secret|token)\w*\s*=\s*)('[^']*'|[^&\s]+)", re.IGNORECASE)


def holds_password(url: str) -> bool:
    """Return whether a ledger's URL or connection string contains a password."""
    found = _PASSWORD.search(url)
    return bool(url_password(url) or (found and not _PORT.match(found[3])) or _PARAMETER.search(url))


def shown(url: str) -> str:
    """Return the URL with possible passwords masked."""
    text = _PASSWORD.sub(rf"\g<1>\g<2>:{MASK}@", url)
    return str(masked("ledger", _PARAMETER.sub(rf"\g<1>{MASK}", text)))
