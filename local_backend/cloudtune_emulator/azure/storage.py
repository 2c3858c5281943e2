"""The workspace's blob store: the workspace's datastores, and the blobs themselves.

Calls and shapes: azure-ai-ml 1.35.2 (``datastores``, ``listSecrets``) and azure-storage-blob 12.31.1 (Put Blob, Put
Block, Put Block List, Get, Head, Delete), seen by running them on 2026-11-21. Blobs have a path on this same server,
as in other storage emulators: ``/blobs/<account>/<container>/<blob>``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import shutil
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

from werkzeug.http import parse_date

from cloudtune_emulator.azure.deployments import ArmError
from cloudtune_emulator.http import ApiError, Call, Reply, SentFile, read_head, received, spool
from cloudtune_emulator.route import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Api

ROOT = "/blobs/"
CONTAINER = "workspaceblobs"
STORES = ("workspaceblobstore",)
_PATH = re.compile(r"/blobs/(?P<account>[^/]+)/(?P<container>[^/]+)/(?P<blob>.+)")
_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
_BLOCK = 1 << 20
_SKEW_S = 15 * 60
_LARGEST = 5000 << 20
"""Limit of one Put Blob (learn.microsoft.com/rest/api/storageservices/put-blob, seen 2026-11-21)."""
_LARGEST_LIST = 16 << 20


class BlobError(ApiError):
    """An error in the blob service's shape: XML, and the code in a header."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, code=code, headers=headers)
        self._code, self._message = code, message

    def reply(self) -> Reply:
        """The HTTP response of this error."""
        element = ET.Element("Error")
        ET.SubElement(element, "Code").text = self._code
        ET.SubElement(element, "Message").text = self._message
        headers = self.headers | {"x-ms-error-code": self._code}
        return Reply(status=self.status, body=ET.tostring(element), headers=headers, content_type="application/xml")


# -- the workspace's datastores --------------------------------------------------------------------------------------


def key_of(context: EmulatorContext) -> str:
    """The storage account's key."""
    return base64.b64encode(hashlib.sha256(context.settings.azure_key.encode()).digest()).decode()


def get_store(context: EmulatorContext, call: Call) -> Reply:
    """One datastore, without its key."""
    name = call.ids["datastore"]
    if name not in STORES:
        raise ArmError(404, "UserError", f"Datastore {name} was not found.")
    properties = {
        "datastoreType": "AzureBlob", "accountName": context.settings.account, "containerName": CONTAINER,
        "endpoint": "core.windows.net", "protocol": "https", "isDefault": True,
        "credentials": {"credentialsType": "AccountKey"},
    }  # fmt: skip
    return Reply(body={"id": f"{call.base}/datastores/{name}", "name": name, "properties": properties})


def list_secrets(context: EmulatorContext, call: Call) -> Reply:
    """A datastore's key."""
    get_store(context, call)
    return Reply(body={"secretsType": "AccountKey", "key": key_of(context)})


# -- blobs -----------------------------------------------------------------------------------------------------------


def route(method: str, path: str, query: Mapping[str, str]) -> Route:
    """The route of a blob."""
    found = _PATH.fullmatch(path)
    part = query.get("comp")
    acts = {
        ("PUT", None): ("blobs.put", put), ("PUT", "block"): ("blobs.block", put_block),
        ("PUT", "blocklist"): ("blobs.put", put_list), ("HEAD", None): ("blobs.head", head),
        ("GET", None): ("blobs.get", get), ("DELETE", None): ("blobs.delete", delete),
    }  # fmt: skip
    act = acts.get((method, part))
    if found is None or act is None:
        raise BlobError(400, "UnsupportedHttpVerb", f"{method} of {path} (comp={part}) is not emulated.")
    return Route("azure", act[0], act[1], check_key, found.groupdict(), read_blob, _dressed)


def named(name: str) -> Route:
    """The route of a call that is already read."""
    handler = {"blobs.put": put, "blobs.block": put_block, "blobs.delete": delete}[name]
    return Route("azure", name, handler, check_key)


def read_blob(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float) -> Call:
    """The body goes into an unnamed file; the service's size limit applies."""
    held = received(request.stream, _LARGEST_LIST if request.args.get("comp") == "blocklist" else _LARGEST)
    files = {"body": SentFile(filename=ids["blob"], stream=held)}
    return replace(read_head(request, api, name, ids, now), files=files)


def _dressed(error: ApiError) -> ApiError:
    if isinstance(error, BlobError):
        return error
    codes = {401: "NoAuthenticationInformation", 403: "AuthorizationFailure", 429: "ServerBusy", 503: "ServerBusy"}
    return BlobError(error.status, codes.get(error.status, "InternalError"), str(error), error.headers)


def check_key(context: EmulatorContext, request: Request) -> None:
    """Shared Key: a signature over the request, of the last 15 minutes.

    (learn.microsoft.com, Authorize with Shared Key, seen 2026-11-21.)
    """
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    account, _, signature = given.partition(":")
    key = base64.b64decode(key_of(context))
    wanted = base64.b64encode(hmac.new(key, _to_sign(request, account).encode(), hashlib.sha256).digest()).decode()
    is_ours = scheme == "SharedKey" and account == context.settings.account
    if not (is_ours and hmac.compare_digest(signature.encode(), wanted.encode()) and _is_recent(request)):
        message = "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
        raise BlobError(403, "AuthenticationFailed", f"{message}correctly including the signature.")


def _is_recent(request: Request) -> bool:
    # Compared with the machine's time: clients sign with theirs, not with the emulator's clock.
    sent = parse_date(request.headers.get("x-ms-date") or request.headers.get("Date"))
    return sent is not None and abs(time.time() - sent.timestamp()) <= _SKEW_S


def _to_sign(request: Request, account: str) -> str:
    headers = {name.lower(): value for name, value in request.headers.items()}
    if headers.get("content-length") == "0":
        del headers["content-length"]
    lines = [request.method, *(headers.get(name, "") for name in _SIGNED)]
    own_headers = sorted((name, value) for name, value in headers.items() if name.startswith("x-ms-"))
    path = quote(request.path, safe="/~")
    query = "".join(f"\n{name.lower()}:{unquote(value)}" for name, value in sorted(request.args.items()))
    return (
        "\n".join(lines)
        + "\n"
        + "".join(f"{name}:{value}\n" for name, value in own_headers)
        + f"/{account}{path}{query}"
    )


def put(context: EmulatorContext, call: Call) -> Reply:
    """Store a whole blob; with ``If-None-Match: *`` only if none exists."""
    stream = call.files["body"].stream
    _check_sum(call)
    stream.seek(0)
    return _keep(context, call, stream)


def put_block(context: EmulatorContext, call: Call) -> Reply:
    """Store a block, which is visible only once a block list names it."""
    _check_sum(call)
    stream = call.files["body"].stream
    stream.seek(0)
    block = call.query.get("blockid")
    if not block:
        message = "A query parameter that is mandatory for this request is not specified: blockid."
        raise BlobError(400, "MissingRequiredQueryParameter", message)
    context.store.write(_part(call, block), stream)
    return Reply(status=201, body=b"", headers={"x-ms-request-server-encrypted": "true"})


def put_list(context: EmulatorContext, call: Call) -> Reply:
    """Assemble the blob from a block list."""
    stream = call.files["body"].stream
    stream.seek(0)
    try:
        entries = ET.fromstring(stream.read())  # noqa: S314 - expat limits what entities expand to
    except (ET.ParseError, ValueError, LookupError) as error:
        raise BlobError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") from error
    with spool() as joined:
        for entry in entries:
            part = context.store.content(_part(call, entry.text or ""))
            if not part.exists():
                raise BlobError(400, "InvalidBlockList", "The specified block list is invalid.")
            with part.open("rb") as content:
                shutil.copyfileobj(content, joined, _BLOCK)
        joined.seek(0)
        return _keep(context, call, joined)


def _keep(context: EmulatorContext, call: Call, stream: Any) -> Reply:
    name = _name(call)
    with context.store.alone():
        old = context.store.get("blob", "azure", name)
        if old is not None and call.headers.get("if-none-match") == "*":
            raise BlobError(409, "BlobAlreadyExists", "The specified blob already exists.")
        blob = {"id": name, "created": call.now, "bytes": context.store.write(_content(name), stream)}
        (context.store.save if old is not None else context.store.add)("blob", "azure", blob)
    return Reply(status=201, body=b"", headers=_headers(blob))


def head(context: EmulatorContext, call: Call) -> Reply:
    """A blob's properties."""
    blob = _find(context, call)
    headers_out = {"Content-Length": str(blob["bytes"]), "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
    return Reply(body=(), headers=_headers(blob) | headers_out, content_type="application/octet-stream")


def get(context: EmulatorContext, call: Call) -> Reply:
    """A blob's bytes."""
    blob = _find(context, call)
    path = context.store.content(_content(blob["id"]))
    headers_out = {"x-ms-blob-type": "BlockBlob", "Content-Range": f"bytes 0-{blob['bytes'] - 1}/{blob['bytes']}"}
    return Reply(body=path, headers=_headers(blob) | headers_out, content_type="application/octet-stream")


def delete(context: EmulatorContext, call: Call) -> Reply:
    """Delete a blob. A second deletion is 404."""
    blob = _find(context, call)
    context.store.remove("blob", "azure", blob["id"])
    context.store.erase(_content(blob["id"]))
    return Reply(status=202, body=b"", headers={"x-ms-delete-type-permanent": "true"})


def _find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    blob = context.store.get("blob", "azure", _name(call))
    if blob is None:
        raise BlobError(404, "BlobNotFound", "The specified blob does not exist.")
    return blob


def _check_sum(call: Call) -> None:
    wanted = call.headers.get("content-md5")
    if wanted is None:
        return
    stream = call.files["body"].stream
    stream.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while block := stream.read(_BLOCK):
        digest.update(block)
    try:
        given = base64.b64decode(wanted, validate=True)
    except binascii.Error:
        given = b""
    if given != digest.digest():
        raise BlobError(400, "Md5Mismatch", "The MD5 value specified in the request did not match the content's.")


def _headers(blob: dict[str, Any]) -> dict[str, str]:
    etag = hashlib.sha256(f"{blob['id']}/{blob['created']}".encode()).hexdigest()[:16]
    return {"ETag": f'"0x{etag.upper()}"', "Last-Modified": formatdate(blob["created"], usegmt=True)}


def _name(call: Call) -> str:
    return f"{call.ids['container']}/{call.ids['blob']}"


def _content(name: str) -> str:
    return f"blob-{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _part(call: Call, block: str) -> str:
    return f"part-{hashlib.sha256(f'{_name(call)}/{block}'.encode()).hexdigest()[:40]}"
