"""S3 metadata headers with underscores in their names. WSGI cannot represent them, and servers drop them.

boto3 sends ``Metadata={"made_by": "me"}`` as ``x-amz-meta-made_by``, and signs that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "x-amz-meta-"
_MOTO = "moto.preserved_header_names"
"""The environment key from which moto 5.2.5 reads names as they were sent (``moto/core/request.py``)."""


def keep_underscores(environ: dict[str, Any], headers: Iterable[tuple[str, str]]) -> None:
    """Add the metadata headers that the server dropped. A name with hyphens is never replaced."""
    kept: dict[str, str] = {}
    for name, value in headers:
        if "_" in name and name.lower().startswith(_PREFIX):
            key = f"HTTP_{name.upper().replace('-', '_')}"
            if key not in environ:
                environ[key], kept[key] = value, name
    environ[_MOTO] = kept
