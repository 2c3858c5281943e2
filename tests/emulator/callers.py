"""Bare HTTP with each API's credentials: for requests that no SDK would send."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

import urllib3
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloudtune_local.emulator.azure import storage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_local.emulator import Emulator

_SIGNED_BY_AZURE = 11
"""Standard headers that Shared Key signs; none of them is sent here but Content-Length."""


class Caller:
    """Sends what it is told to send, byte for byte."""

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
        account, url = self._emulator.settings.account, urlsplit(path)
        size = str(len(body)) if body else ""
        standard = [method, "", "", size, *[""] * (_SIGNED_BY_AZURE - 3)]
        query = "".join(f"\n{name.lower()}:{unquote(value)}" for name, value in sorted(parse_qsl(url.query)))
        text = "\n".join(standard) + f"\n/{account}{url.path}{query}"
        key = base64.b64decode(storage.key_of(self._emulator.site))
        signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
        return self.send(method, path, body, {"Authorization": f"SharedKey {account}:{signature}"} | _named(headers))

    def aws(
        self, service: str, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        settings = self._emulator.settings
        signing = (S3SigV4Auth if service == "s3" else SigV4Auth)(
            Credentials(settings.aws_key, settings.aws_secret), service, settings.aws_region
        )
        request = AWSRequest(method, self._emulator.url + path, headers=_named(headers), data=body or b"")
        signing.add_auth(request)
        return self.send(method, path, body, dict(request.headers.items()))

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        if body is None and method in ("POST", "PUT"):
            body = b""
        url = urlsplit(self._emulator.url)
        pool = self._pool.connection_from_host(url.hostname, url.port, url.scheme)
        return pool.urlopen(method, path, body=body, headers=headers, preload_content=True, assert_same_host=False)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
