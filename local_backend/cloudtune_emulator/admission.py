"""Checks that reject requests that a web page may have sent, whatever their path and their key.

Browsers allow any page to send requests to loopback. Three checks reject them, on every API and every method:

* The ``Host`` must be a name of this server. After DNS rebinding, a page's own name resolves to loopback, but
  ``Host`` still holds that name.
* ``Origin`` is refused. Browsers send it with every form post, preflight, WebSocket and cross-origin fetch.
* ``Sec-Fetch-Site`` must be ``none``: a navigation that the user started. Browsers send it with images and scripts
  (https://www.w3.org/TR/fetch-metadata/, seen 2026-11-29).

No vendor SDK, curl or AWS CLI sends the last two. Keys are checked in addition, see `Route.check_key`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING

from cloudtune_emulator.http import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.wrappers import Request

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\\,\s]+)(?::\d{1,5})?")

RESPONSE_HEADERS = (
    ("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Sent with every response: stored objects may be HTML with scripts."""
_RESERVED = frozenset(name.lower() for name, _ in RESPONSE_HEADERS)


def check(request: Request, bound_host: str) -> None:
    """Refuse requests that a web page may have caused.

    Raises ApiError: 421 for a foreign ``Host``; 403 for an ``Origin``, a ``Sec-Fetch-Site`` or a WebSocket.
    """
    host = request.headers.get("Host", "")
    if not is_allowed_host(host, bound_host):
        message = f"The Host {host!r} is not a name of this server. Use the URL that it printed."
        raise ApiError(421, message, code="misdirected_request")
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise ApiError(403, "Requests from web pages are refused.", code="cross_origin_request")
    if request.headers.get("Upgrade", "").strip().lower() == "websocket":
        raise ApiError(403, "WebSockets are not supported.", code="websocket_refused")


def is_allowed_host(header: str, bound_host: str) -> bool:
    """Whether a ``Host`` header names this server. The port may differ, as it does behind a forwarded port.

    Literal loopback addresses cannot be rebound. A server on an unspecified address (``0.0.0.0``) also answers to any
    literal address and to the machine's own name.
    """
    found = _HOST.fullmatch(header)
    if found is None:
        return False
    name = found["name"].strip("[]").lower()
    if name in ("localhost", bound_host.lower()):
        return True
    bound = _address(bound_host)
    is_any = bound is not None and bound.is_unspecified
    address = _address(name)
    if address is not None:
        return address.is_loopback or is_any
    return is_any and name == socket.gethostname().lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def response_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers with the protective ones added, and without any that opens the response to other origins."""
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() not in _RESERVED and not name.lower().startswith(("access-control-", "timing-allow-origin"))
    ]
    return [*kept, *RESPONSE_HEADERS]
