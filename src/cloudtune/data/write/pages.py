"""Shared parts of pages with untrusted text: data that cannot leave its script element, and a content policy."""

from __future__ import annotations

import base64
import hashlib
import re

_IN_SCRIPT = re.compile("[<>&\u2028\u2029]")


def script_safe(document: str) -> str:
    """Return the JSON document, escaped for a script element: no part of it ends or opens markup."""
    return _IN_SCRIPT.sub(lambda found: f"\\u{ord(found.group()):04x}", document)


def policy(style: str, script: str | None = None) -> str:
    """The element that allows the page only that style sheet and that script: nothing else runs or is loaded."""
    scripts = f"script-src {_source(script)}; " if script is not None else ""
    content = f"default-src 'none'; {scripts}style-src {_source(style)}; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv=Content-Security-Policy content="{content}">'


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
