"""The emulator's credentials as clients pass them, and its admin API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib import request

if TYPE_CHECKING:
    from cloudtune_emulator import Emulator


def aws_keys(emulator: Emulator) -> dict[str, str]:
    """Arguments of ``boto3.client``."""
    settings = emulator.settings
    return {"aws_access_key_id": settings.aws_key, "aws_secret_access_key": settings.aws_secret}


def admin(emulator: Emulator, name: str, body: Any = None, *, method: str | None = None) -> Any:
    """Call the admin API: GET, or POST where there is a body. Raises urllib's HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {emulator.settings.admin_token}"}
    requested = request.Request(f"{emulator.url}/_emulator/{name}", data, headers, method=method)
    with request.urlopen(requested) as answer:
        return json.load(answer)
