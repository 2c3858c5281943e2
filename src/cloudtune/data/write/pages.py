"""Shared parts of pages with untrusted text: data that cannot leave its script element, and a content policy."""

from __future__ import annotations

import base64
import hashlib
import re

_IN_SCRIPT = re.compile("[<>&\u2028\u2029]")


def script_safe(document: str) -> str:
    """Return the JSON document, escaped for a script element: no part of it ends or opens markup."""
    return _IN_SCRIPT.sub(lambda found: f"\\u{ord(found.group()):04x}", document)


def policy(style: str) -> str:
    """The element that allows the page only that style sheet: no script runs, nothing is loaded."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    content = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv=Content-Security-Policy content="{content}">'
