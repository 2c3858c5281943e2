"""``/v1/uploads``: a large file in parts. As at the vendor, there is no get and no list.

Parts of at most 64 MB, 8 GB in all, an hour to complete: published OpenAPI description, ``/uploads``
(github.com/openai/openai-openapi, commit f85dbe2, seen 2026-11-21). Shapes: openai 3.52.0, ``types/upload.py``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import ApiError, Call, Reply, spool
from cloudtune_emulator.openai import files
from cloudtune_emulator.store import new_id

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

LARGEST_PART = 64 * 1024 * 1024
LARGEST = 8 * 1024**3
LIVES_S = 3600
_BLOCK = 1 << 20


def create(context: EmulatorContext, call: Call) -> Reply:
    """Create an upload."""
    body = call.body
    for name in ("filename", "mime_type"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise ApiError(400, f"'{name}' is a required property", param=name)
    size = body.get("bytes")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= LARGEST:
        raise ApiError(400, f"'bytes' must be a whole number from 1 to {LARGEST}.", param="bytes")
    upload = {
        "id": new_id("upload_"), "bytes": size, "created": call.now, "filename": body["filename"],
        "purpose": files.checked_purpose(body), "expiry": files.expires_in(body), "status": "pending", "file": None,
    }  # fmt: skip
    return Reply(body=_view(context, context.store.add("upload", call.api, upload), call))


def part(context: EmulatorContext, call: Call) -> Reply:
    """Add a part. Completion sets the order, so parts can arrive in any order."""
    upload = _pending(context, call)
    sent = call.files.get("data")
    if sent is None:
        raise ApiError(400, "'data' is a required property", param="data")
    name = new_id("part_")
    sent.stream.seek(0)
    size = context.store.write(name, sent.stream)
    if size > LARGEST_PART:
        context.store.erase(name)
        raise ApiError(400, "A part has at most 64 MB.", param="data")
    document = {"id": name, "upload": upload["id"], "bytes": size, "created": call.now}
    context.store.add("part", call.api, document)
    return Reply(body={"id": name, "object": "upload.part", "created_at": context.stamp(call.now),
                       "upload_id": upload["id"]})  # fmt: skip


def complete(context: EmulatorContext, call: Call) -> Reply:
    """Assemble the file from the parts, in the given order; their sizes must add up to the declared size."""
    upload = _pending(context, call)
    names = call.body.get("part_ids")
    if not isinstance(names, list) or not names:
        raise ApiError(400, "'part_ids' is a required property", param="part_ids")
    parts = [context.store.get("part", call.api, str(name)) for name in names]
    for name, found in zip(names, parts, strict=True):
        if found is None or found["upload"] != upload["id"]:
            raise ApiError(400, f"No such part in this upload: {name}", param="part_ids")
    size = sum(found["bytes"] for found in parts if found)
    if size != upload["bytes"]:
        raise ApiError(400, f"The parts hold {size} bytes, but {upload['bytes']} were announced.", param="part_ids")
    digest = hashlib.md5(usedforsecurity=False)
    with spool() as joined:
        for name in names:
            with context.store.content(name).open("rb") as source:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    joined.write(block)
        if call.body.get("md5") not in (None, digest.hexdigest()):
            raise ApiError(400, "The md5 checksum does not match the uploaded bytes.", param="md5")
        joined.seek(0)
        file = files.keep(context, call, upload["filename"], upload["purpose"], joined, upload["expiry"])
    upload |= {"status": "completed", "file": file["id"]}
    context.store.save("upload", call.api, upload)
    _forget_parts(context, call, upload)
    return Reply(body=_view(context, upload, call))


def cancel(context: EmulatorContext, call: Call) -> Reply:
    """Cancel an upload."""
    upload = _pending(context, call)
    upload["status"] = "cancelled"
    context.store.save("upload", call.api, upload)
    _forget_parts(context, call, upload)
    return Reply(body=_view(context, upload, call))


def _pending(context: EmulatorContext, call: Call) -> dict[str, Any]:
    upload = context.store.get("upload", call.api, call.ids["upload"])
    if upload is None:
        raise ApiError(404, f"No such Upload object: {call.ids['upload']}", param="upload_id")
    status = _status(upload, call)
    if status != "pending":
        raise ApiError(400, f"Upload {upload['id']} is {status}.", param="upload_id")
    return upload


def _status(upload: dict[str, Any], call: Call) -> str:
    is_over = upload["status"] == "pending" and call.now >= upload["created"] + LIVES_S
    return "expired" if is_over else str(upload["status"])


def _forget_parts(context: EmulatorContext, call: Call, upload: dict[str, Any]) -> None:
    for found in context.store.all("part", call.api):
        if found["upload"] == upload["id"]:
            context.store.remove("part", call.api, found["id"])
            context.store.erase(found["id"])


def _view(context: EmulatorContext, upload: dict[str, Any], call: Call) -> dict[str, Any]:
    file = context.store.get("file", call.api, upload["file"]) if upload["file"] else None
    shown = {name: upload[name] for name in ("id", "bytes", "filename", "purpose")}
    return shown | {
        "object": "upload", "created_at": context.stamp(upload["created"]), "status": _status(upload, call),
        "expires_at": context.stamp(upload["created"] + LIVES_S),
        "file": files.view(context, call.api, file, call.now) if file else None,
    }  # fmt: skip
