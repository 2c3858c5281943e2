"""The parts of the model hub that planning needs: the local cache, and whether an id exists.

Read-only: the trainer downloads missing files when it runs. A token is read from HF_TOKEN, sent to the hub and never
stored.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 10.0
_LARGEST = 10_000_000


class HubError(Exception):
    """The hub does not have the model, or is not reachable; ``advice`` is the recommended action."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


def cache_folder() -> Path:
    """The cache folder of the hub's own library."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The folder of that model's files in the cache, named by its commit; None if missing."""
    folder = cache_folder() / f"models--{name.replace('/', '--')}"
    wanted = revision or "main"
    if not re.fullmatch(r"[0-9a-f]{40}", wanted):
        try:
            wanted = (folder / "refs" / wanted).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not re.fullmatch(r"[0-9a-f]{40}", wanted):
            return None
    snapshot = folder / "snapshots" / wanted
    return snapshot if (snapshot / "config.json").exists() else None


def look_up(name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """The current commit of the id, and the model's config.json. Raises HubError."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise HubError("the hub is disabled (HF_HUB_OFFLINE is set)", "use a model folder or a .gguf file")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    info = _get(f"{endpoint}/api/models/{name}/revision/{quote(revision or 'main', safe='')}", name)
    commit = info.get("sha")
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise HubError(f"{endpoint} does not respond like a model hub", "check HF_ENDPOINT")
    return commit, _get(f"{endpoint}/{name}/resolve/{commit}/config.json", name)


def _get(url: str, name: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers={"User-Agent": "cloudtune"})  # noqa: S310 - the user's own endpoint
    token = os.environ.get("HF_TOKEN")
    if token:
        # Not followed by a redirect to another host: urllib sends unredirected headers to the first host only.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            document = json.loads(answer.read(_LARGEST))
    except urllib.error.HTTPError as error:
        error.close()  # the error is also the response, and holds its connection
        raise _refused(error.code) from error
    except (OSError, ValueError, RecursionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        advice = "download the model on a machine with network access, and use its folder or a .gguf file"
        raise HubError(f"cannot connect to the hub ({reason})", advice) from error
    if not isinstance(document, dict):
        raise HubError("the hub returned an unexpected response", f"check the id {name!r}")
    return document


def _refused(code: int) -> HubError:
    if code in (401, 403):
        advice = "check the id; if it is private or gated, accept its terms on the hub and set HF_TOKEN"
        return HubError(f"the hub denies access to it ({code})", advice)
    if code == 404:
        return HubError("the hub has no such model, or no config.json in it", "check the id")
    return HubError(f"the hub returned {code}", "try again later, or use a model folder")
