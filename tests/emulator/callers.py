"""Bare HTTP with each API's credentials: for requests that no SDK would send."""

from __future__ import annotations

import base64
import hashlib
import hmac
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlsplit

import urllib3
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloudtune_emulator.azure import storage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_emulator import Emulator

_SIGNED_BY_AZURE = 11
"""Standard headers that Shared Key signs; none of them is sent here but Content-Length."""


class Caller:
    """Sends given bytes unchanged."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._pool = urllib3.PoolManager(retries=False)

    def openai(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        key = self._emulator.settings.api_key
        return self.send(method, path, body, {"Authorization": f"Bearer {key}"} | _named(headers))

    def mantle(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        key = self._emulator.settings.bedrock_api_key
        return self.send(method, path, body, {"Authorization": f"Bearer {key}"} | _named(headers))

    def azure(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        return self.send(method, path, body, {"api-key": self._emulator.settings.azure_key} | _named(headers))

    def management(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        token = self._emulator.settings.azure_token
        return self.send(method, path, body, {"Authorization": f"Bearer {token}"} | _named(headers))

    def blob(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """Signed by Shared Key (learn.microsoft.com, Authorize with Shared Key, seen 2026-11-21)."""
        date = formatdate(usegmt=True)
        account, url = self._emulator.settings.account, urlsplit(path)
        size = str(len(body)) if body else ""
        standard = [method, "", "", size, *[""] * (_SIGNED_BY_AZURE - 3)]
        query = "".join(f"\n{name.lower()}:{unquote(value)}" for name, value in sorted(parse_qsl(url.query)))
        text = "\n".join(standard) + f"\nx-ms-date:{date}\n/{account}{url.path}{query}"
        key = base64.b64decode(storage.key_of(self._emulator.context))
        signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
        signed = {"Authorization": f"SharedKey {account}:{signature}", "x-ms-date": date}
        return self.send(method, path, body, signed | _named(headers))

    def aws(
        self, service: str, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        settings, path = self._emulator.settings, _escaped(path)
        signing = (S3SigV4Auth if service == "s3" else SigV4Auth)(
            Credentials(settings.aws_key, settings.aws_secret), service, settings.aws_region
        )
        request = AWSRequest(method, self._emulator.url + path, headers=_named(headers), data=body or b"")
        signing.add_auth(request)
        # Signed as UTF-8, and so sent as UTF-8: http.client encodes as Latin-1.
        sent = {name: value.encode().decode("latin-1") for name, value in request.headers.items()}
        return self.send(method, path, body, sent)

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        if body is None and method in ("POST", "PUT"):
            body = b""
        url = urlsplit(self._emulator.url)
        pool = self._pool.connection_from_host(url.hostname, url.port, url.scheme)
        # As sent: an object may call itself gzip and not be it.
        return pool.urlopen(
            method, path, body=body, headers=headers, preload_content=True, assert_same_host=False, decode_content=False
        )


def _escaped(path: str) -> str:
    """The path and the query as clients send and sign them: every character that has to be is escaped, in capitals."""
    path, mark, query = path.partition("?")
    pairs = ["=".join(map(_quoted, pair.split("=", 1))) for pair in query.split("&") if pair]
    return "/".join(map(_quoted, path.split("/"))) + mark + "&".join(pairs)


def _quoted(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
