"""``/v1/files``. Shapes: openai 3.52.0, ``types/file_object.py``, ``types/file_list_params.py``.

Purposes, the 512 MB limit and the deprecated but still sent ``status``: published OpenAPI description, ``/files``
(github.com/openai/openai-openapi, commit f85dbe2, seen 2026-11-21).
"""

from __future__ import annotations

import base64
from typing import IO, TYPE_CHECKING, Any

from cloudtune_emulator.azure import dialect
from cloudtune_emulator.http import Api, ApiError, Call, Reply, page
from cloudtune_emulator.store import new_id

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""openai 3.52.0, ``types/file_purpose.py``."""
LARGEST = 512 * 1024 * 1024


def create(context: EmulatorContext, call: Call) -> Reply:
    """Store a file. The same bytes create another file: there is no idempotency key and no hash."""
    sent = call.files.get("file")
    if sent is None:
        raise ApiError(400, "'file' is a required property", param="file")
    purpose = checked_purpose(call.body)
    if purpose == "fine-tune" and not sent.filename.endswith(".jsonl"):
        # Refused at the upload, unlike faults in its lines (published OpenAPI description of POST /files).
        raise ApiError(400, "Invalid file format for Fine-Tuning API. Must be .jsonl", param="file")
    expiry = expires_in(call.body)
    if call.api == "azure":
        dialect.refuse_full(context, call)
    sent.stream.seek(0)
    file = keep(context, call, sent.filename, purpose, sent.stream, expiry)
    return Reply(body=view(context, call.api, file, call.now))


def checked_purpose(body: dict[str, Any]) -> str:
    """The purpose, or the vendor's error."""
    purpose = body.get("purpose")
    if purpose is None:
        raise ApiError(400, "'purpose' is a required property", param="purpose")
    if purpose not in PURPOSES:
        known = ", ".join(repr(name) for name in PURPOSES)
        raise ApiError(400, f"'{purpose}' is not one of [{known}] - 'purpose'", param="purpose")
    return str(purpose)


def expires_in(body: dict[str, Any]) -> int | None:
    """Seconds after creation: between an hour and 30 days (openai 3.52.0, ``file_create_params.py``)."""
    requested = body.get("expires_after")
    if requested is None:
        return None
    try:
        seconds = int(requested["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(400, "'expires_after' needs 'anchor' and 'seconds'.", param="expires_after") from error
    if requested.get("anchor") != "created_at" or not 3600 <= seconds <= 2592000:
        message = "'expires_after' needs the anchor 'created_at' and 3600 to 2592000 seconds."
        raise ApiError(400, message, param="expires_after")
    return seconds


def keep(
    context: EmulatorContext, call: Call, filename: str, purpose: str, stream: IO[bytes], expiry: int | None = None,
    *, file_id: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a file into the store; also used for result files."""
    name = file_id or new_id("file-")
    size = context.store.write(name, stream)
    if size > LARGEST and purpose == "fine-tune" and call.name == "files.create":
        context.store.erase(name)
        raise ApiError(413, "File is too large: the limit is 512 MB.", param="file")
    document = {"id": name, "bytes": size, "created": call.now, "filename": filename, "purpose": purpose,
                "expires": None if expiry is None else call.now + expiry}  # fmt: skip
    return context.store.add("file", call.api, document)


def view(context: EmulatorContext, api: Api, file: dict[str, Any], now: float) -> dict[str, Any]:
    """The file object. Azure's is ``pending`` first (litellm #24687, seen 2026-11-21)."""
    is_ready = now >= file["created"] + context.settings.processing_s
    shown = {name: file[name] for name in ("id", "bytes", "filename", "purpose")}
    shown |= {"object": "file", "created_at": context.stamp(file["created"]), "status_details": None}
    shown |= {"status": "processed" if is_ready else "uploaded"}
    shown["expires_at"] = None if file["expires"] is None else context.stamp(file["expires"])
    return dialect.dressed_file(shown) if api == "azure" else shown


def list_(context: EmulatorContext, call: Call) -> Reply:
    """Files, newest first by default."""
    order = call.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(400, f"Invalid value for 'order': {order!r}. Expected 'asc' or 'desc'.", param="order")
    purpose = call.query.get("purpose")
    lag = context.faults.condition("list_lag", call.name)
    files = [
        file
        for file in context.store.all("file", call.api)
        if not _is_gone(file, call.now)
        and (not purpose or file["purpose"] == purpose)
        and (lag is None or file["created"] <= call.now - lag.seconds)
    ]
    views = [view(context, call.api, file, call.now) for file in (files if order == "asc" else reversed(files))]
    return Reply(body=page(views, call, default=10_000, most=10_000, ends=True))


def get(context: EmulatorContext, call: Call) -> Reply:
    """One file."""
    return Reply(body=view(context, call.api, find(context, call), call.now))


def content(context: EmulatorContext, call: Call) -> Reply:
    """A file's bytes. Result files are CSV, or base64 (users' reports differ: a fault decides)."""
    path = context.store.content(find(context, call)["id"])
    is_result = call.ids["file"].startswith("file-result")
    if is_result and context.faults.condition("base64_results", call.name):
        return Reply(body=base64.b64encode(path.read_bytes()), content_type="application/octet-stream")
    return Reply(body=path, content_type="application/octet-stream")


def delete(context: EmulatorContext, call: Call) -> Reply:
    """Delete a file. A second deletion is 404."""
    file = find(context, call)
    context.store.remove("file", call.api, file["id"])
    context.store.erase(file["id"])
    return Reply(body={"id": file["id"], "object": "file", "deleted": True})


def find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    """The file that the path names, or 404."""
    file = context.store.get("file", call.api, call.ids["file"])
    if file is None or _is_gone(file, call.now):
        raise ApiError(404, f"No such File object: {call.ids['file']}", param="id")
    return file


def _is_gone(file: dict[str, Any], now: float) -> bool:
    return file["expires"] is not None and now >= file["expires"]
