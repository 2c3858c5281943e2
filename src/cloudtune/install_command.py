"""The command that installs an extra into the environment of this copy of cloudtune.

A copy from a checkout or a wheel names its source, because the name on the package index can be another project's.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "cloudtune"


def install_command(extra: str) -> str:
    """Return the pip command for the extra, or for several with commas between them."""
    source = _source()
    if source is None:
        return f'pip install "{DISTRIBUTION}[{extra}]"'
    if source.is_dir():
        return f"pip install -e {shlex.quote(f'{source}[{extra}]')}"
    return f"pip install {shlex.quote(f'{DISTRIBUTION}[{extra}] @ {source.as_uri()}')}"


def _source() -> Path | None:
    """The checkout or the wheel that this copy comes from. None: the package index."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout
    from importlib import metadata

    try:
        written = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        found: Any = json.loads(written or "{}")
    except (metadata.PackageNotFoundError, ValueError, RecursionError):
        return None
    address = urlsplit(str(found.get("url", "")) if isinstance(found, dict) else "")
    path = Path(unquote(address.path))
    return path if address.scheme == "file" and path.exists() else None
