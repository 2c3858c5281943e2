"""The WSGI application: it receives every request, injects faults, and passes the request to its API.

For each request, in this order: requests that a web page may have sent are refused; delayed requests that are due are
executed; the key is checked, from the headers alone; the body is read; a fault may refuse, delay or disconnect; rate
limits apply; the call is executed, and a fault may still drop the response.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import replace
from http.client import responses as reasons
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from wsgiref.handlers import format_date_time

import msgspec
from werkzeug.wrappers import Request

from cloudtune_emulator import admin_api, admission, routing
from cloudtune_emulator.faults import UNREADABLE
from cloudtune_emulator.http import SPOOL, ApiError, Call, ConnectionDropped, Reply
from cloudtune_emulator.settlement import settle
from cloudtune_emulator.wsgi_bridge import BodyTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.faults import Fault
    from cloudtune_emulator.route import Route

_LOG = logging.getLogger(__name__)
_REMEMBERED = 10_000
_BLOCK = 1 << 16


class _Request(Request):
    max_form_memory_size = 1 << 20  # fields are short; files go to disk


class App:
    """Serves one `EmulatorContext`. ``host`` is the address that the server listens on."""

    def __init__(self, context: EmulatorContext, host: str = "127.0.0.1") -> None:
        self.context = context
        self._host = host
        self.seen: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        """The requests and their outcomes, newest last: for tests that compare bodies with a plan."""
        self._lock = threading.Lock()
        self._minute: deque[float] = deque()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        request = _Request(environ)
        try:
            admission.check(request, self._host)
            reply = admin_api.serve(self, request) if admin_api.is_here(request) else self._serve(request)
        except ApiError as error:
            reply = error.reply()
        except ConnectionAbortedError:
            raise
        except ConnectionDropped:
            raise ConnectionAbortedError("the connection was cut on purpose") from None  # the server closes it
        except Exception:  # noqa: BLE001 - a client must always get a response that it can parse
            reply = _own_fault(request).reply()
        finally:
            if (spool := environ.get(SPOOL)) is not None:
                spool.close()
        return send(reply, self.context.clock.now() + self.context.faults.skew(), start_response)

    def _serve(self, request: Request) -> Reply:
        now = self.context.clock.now()
        self._deliver_delayed(now)
        route = routing.find(self.context, request)
        try:
            return self._met(route, self._read(route, request, now))
        except ApiError as error:
            raise route.dressed(error) from error
        except BodyTimeout as error:
            raise route.dressed(ApiError(408, "The request body arrives too slowly.", code="RequestTimeout")) from error
        except (ConnectionDropped, ConnectionAbortedError):
            raise
        except Exception as error:  # in the vendor's shape, too
            raise route.dressed(_own_fault(request)) from error

    def _read(self, route: Route, request: Request, now: float) -> Call:
        """The whole call, if its headers have the right key."""
        try:
            route.check_key(self.context, request)
        except ApiError as error:
            self._note(Call(api=route.api, name=route.name, ids=route.ids, now=now), error.status, acted=False)
            raise
        return route.read(request, route.api, route.name, route.ids, now)

    def _postpone(self, route: Route, call: Call, fault: Fault) -> NoReturn:
        try:
            route.check_request(self.context, call)
        except ApiError:
            call.close()  # drop a request that the API would refuse: its client cannot see the error
        else:
            self.context.faults.postpone(call, fault)
        self._note(call, 0, acted=False, note="late")
        time.sleep(fault.hold_s)
        raise ConnectionDropped

    def _met(self, route: Route, call: Call) -> Reply:
        fault = self.context.faults.take(call.name)
        if fault is not None and fault.kind in ("late", "twice"):
            call = call.kept()
        if fault is not None and fault.kind == "late":
            self._postpone(route, call, fault)
        with closing(call):
            return self._acted(route, call, fault)

    def _acted(self, route: Route, call: Call, fault: Fault | None) -> Reply:
        if fault is not None:
            self._before(call, fault)
        try:
            route.check_request(self.context, call)
            self._limit(call)
        except ApiError as error:
            self._note(call, error.status, acted=False)
            raise
        if fault is not None and fault.kind == "twice":
            self.act(call, route, note="delivered twice")
        reply = self.act(call, route)
        if fault is not None:
            self._after(fault)
            reply = _unreadable(_broken_off(reply, fault), fault)
        return self._truncate(reply, call)

    def act(self, call: Call, route: Route | None = None, *, note: str = "") -> Reply:
        """Execute a call. A refusal is a response too."""
        settle(self.context, call.now)
        route = route or routing.named(call.name, call.api)
        try:
            reply = route.handler(self.context, call)
        except ApiError as error:
            reply = route.dressed(error).reply()
        self._note(call, reply.status, acted=reply.status < 400, note=note)
        return reply

    def deliver_delayed(self) -> int:
        """Execute every delayed request now, and return their number."""
        return self._deliver_delayed(math.inf)

    def _deliver_delayed(self, now: float) -> int:
        late = self.context.faults.landing(now)
        if late:
            settle(self.context, self.context.clock.now())
        for call in late:
            self.act(call, note="late")
            call.close()
        return len(late)

    def _before(self, call: Call, fault: Fault) -> None:
        """Apply a fault that refuses, delays or disconnects a request before it is executed."""
        if fault.kind == "delay":
            time.sleep(fault.seconds)
            return
        refused = _refusal(fault)
        if refused is not None:
            self._note(call, refused.status, acted=False, note=fault.kind)
            raise refused
        if fault.kind == "reset":
            self._note(call, 0, acted=False, note=fault.kind)
            raise ConnectionDropped

    @staticmethod
    def _after(fault: Fault) -> None:
        if fault.kind == "lost_reply":
            time.sleep(fault.hold_s)
            raise ConnectionDropped
        if fault.kind == "error_after":
            raise _server_error(fault)

    def _truncate(self, reply: Reply, call: Call) -> Reply:
        body = reply.body
        if not isinstance(body, dict) or not isinstance(body.get("data"), list) or len(body["data"]) < 2:
            return reply
        if "has_more" in body and self.context.faults.condition("truncated_page", call.name):
            body["data"].pop()
            body["has_more"] = True
            if "last_id" in body:
                body["last_id"] = body["data"][-1]["id"]
        return reply

    def _limit(self, call: Call) -> None:
        """Requests a minute: 429 with Retry-After (https://developers.openai.com/api/docs/guides/rate-limits)."""
        most = self.context.settings.requests_per_minute
        if most is None:
            return
        with self._lock:
            while self._minute and self._minute[0] <= call.now - 60:
                self._minute.popleft()
            if len(self._minute) < most:
                self._minute.append(call.now)
                return
            wait = max(1, round(self._minute[0] + 60 - call.now))
        message = f"Rate limit reached: {most} requests per minute. Please try again in {wait}s."
        headers = {"Retry-After": str(wait)}
        raise ApiError(429, message, code="rate_limit_exceeded", type="requests", headers=headers)

    def _note(self, call: Call, status: int, *, acted: bool, note: str = "") -> None:
        files = {name: sent.filename for name, sent in call.files.items()}
        self.seen.append(
            {"time": call.now, "api": call.api, "call": call.name, "ids": dict(call.ids), "query": dict(call.query),
             "body": call.body, "files": files, "status": status, "acted": acted, "note": note}
        )  # fmt: skip


_STREAMS = ("text/event-stream", "application/vnd.amazon.eventstream")


def _broken_off(reply: Reply, fault: Fault) -> Reply:
    """The response; a streamed one is truncated if a fault requires it."""
    if fault.kind != "cut_answer" or not reply.content_type.startswith(_STREAMS):
        return reply

    def pieces() -> Iterator[bytes]:
        yield from islice(reply.body, 2 if fault.requests is None else max(1, fault.requests))
        raise ConnectionAbortedError("the connection was cut on purpose")

    return replace(reply, body=pieces())


def _unreadable(reply: Reply, fault: Fault) -> Reply:
    """A response from a proxy or another intermediary instead of the vendor."""
    if fault.kind != "unreadable":
        return reply
    kind, body = UNREADABLE.get(fault.value, UNREADABLE["page"])
    return Reply(body=body, content_type=kind)


def _own_fault(request: Request) -> ApiError:
    """To be called where it is handled."""
    _LOG.exception("internal error in %s %s", request.method, request.path)
    error = ApiError(500, "Internal error in the emulator; see its log.", code="emulator_fault", type="server_error")
    error.vendor_words = (None, str(error))
    return error


def _refusal(fault: Fault) -> ApiError | None:
    refused = _refused(fault)
    if refused is not None:
        refused.vendor_words = (fault.code, fault.message)
    return refused


def _refused(fault: Fault) -> ApiError | None:
    if fault.kind == "throttle":
        message = fault.message or "Rate limit reached for requests."
        headers = {"Retry-After": f"{fault.seconds:g}"} if fault.seconds else {}
        return ApiError(429, message, code=fault.code or "rate_limit_exceeded", type="requests", headers=headers)
    if fault.kind == "server_error":
        return _server_error(fault)
    if fault.kind == "forbidden":
        message = fault.message or "You do not have access to this resource."
        return ApiError(403, message, code=fault.code or "insufficient_permissions")
    if fault.kind == "expired_credentials":
        message = fault.message or "Your authentication token has expired. Please sign in again."
        return ApiError(401, message, code=fault.code or "token_expired")
    return None


def _server_error(fault: Fault) -> ApiError:
    message = fault.message or "The server had an error while processing your request."
    error = ApiError(fault.status, message, code=fault.code, type="server_error")
    error.vendor_words = (fault.code, fault.message)
    return error


def send(reply: Reply, date: float, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Start the WSGI response, and return its body."""
    body = reply.body
    headers = [
        ("Content-Type", reply.content_type),
        ("Date", format_date_time(date)),
        ("x-request-id", f"req_{secrets.token_hex(16)}"),
        *reply.headers.items(),
    ]
    chunks: Iterable[bytes]
    if isinstance(body, Path):
        headers.append(("Content-Length", str(body.stat().st_size)))
        chunks = _blocks(body)
    elif body is None or isinstance(body, bytes | dict):
        data = msgspec.json.encode(body) if isinstance(body, dict) else body or b""
        headers.append(("Content-Length", str(len(data))))
        chunks = [data]
    elif "Content-Length" in reply.headers:
        chunks = body
    else:
        headers.append(("Cache-Control", "no-cache"))
        chunks = body
    headers = admission.response_headers(headers)
    start_response(f"{reply.status} {reasons.get(reply.status, 'Unknown')}", headers)
    return chunks


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
