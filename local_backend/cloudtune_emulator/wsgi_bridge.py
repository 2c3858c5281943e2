"""Adapter from uvicorn's asynchronous interface to a WSGI application on threads, with request bodies read on demand.

No part of a body is read before the application reads it, so that a request can be refused by its headers alone. The
unread rest of a body is read and dropped up to a limit; beyond it the connection is closed.
"""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from cloudtune_emulator.aws import header_names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
    from contextlib import AbstractContextManager
    from wsgiref.types import WSGIApplication

_LOG = logging.getLogger(__name__)
_BUFFER = 1 << 16
_LINE_ENDS = dict.fromkeys(map(ord, "\r\n\0"), " ")
_ABORTED = "the connection was closed"
Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Speed limits of bodies. Times are in seconds."""

    idle_s: float = 30.0
    """The longest wait for the next bytes of a request's body."""
    grace_s: float = 60.0
    least_rate: float = 8 << 10
    """Bytes a second. A body may take ``grace_s`` plus the time that this rate needs."""
    write_s: float = 60.0
    """Time for a client to accept the next chunk of a response."""
    drain_bytes: int = 64 << 20
    drain_s: float = 5.0
    """How much of an unread body is dropped so that the client gets the response, and for how long."""


class BodyTimeout(TimeoutError):
    """The client sends its body too slowly."""


class Connected(Protocol):
    """The connection of a request."""

    def cut(self, *, reset: bool) -> None:
        """Close it without the rest of the response."""

    def joined_writes(self) -> AbstractContextManager[None]:
        """Join the writes in this block into one."""
        raise NotImplementedError

    @property
    def is_gone(self) -> bool:
        """Whether the client can no longer read."""
        raise NotImplementedError


class Workers:
    """A pool of daemon threads, started on demand. They end with the process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._count = 0

    def submit(self, act: Callable[[], Any]) -> Future[Any]:
        """Run a function in a thread."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = act()
            except BaseException as error:  # noqa: BLE001 - passed to the caller that waits for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._count < self._most:
                self._count += 1
                threading.Thread(target=self._work, name=f"cloudtune-emulator-{self._count}", daemon=True).start()
        self._waiting.put(run)
        return future

    def _work(self) -> None:
        while (act := self._waiting.get()) is not None:
            act()
            del act
            with self._lock:
                # If requests are waiting, this thread takes the next one and is not idle.
                self._idle += self._waiting.empty()

    def stop(self) -> None:
        """End the threads once they are idle."""
        for _ in range(self._count):
            self._waiting.put(None)


class Body(io.RawIOBase):
    """A request's body, read from the connection when the application reads it. For one thread."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], hop: Hop, pace: Pace, *, is_over: bool) -> None:
        self._receive, self._hop, self._pace = receive, hop, pace
        self._held = memoryview(b"")
        self._waited = 0.0
        self._count = 0
        self.is_over = is_over
        """Whether the client has sent all of it."""
        self.is_begun = False
        """Whether the application has started to read it."""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes. Raises BodyTimeout, and ConnectionAbortedError if the client has disconnected."""
        while not self._held and not self.is_over:
            self._fetch()
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _fetch(self) -> None:
        pace, begun = self._pace, time.monotonic()
        left = pace.grace_s + self._count / pace.least_rate - self._waited
        try:
            message = self._hop.call(self.next(), min(pace.idle_s, left))
        except TimeoutError:
            raise BodyTimeout("the request body arrived too slowly") from None
        self._waited += time.monotonic() - begun
        self._held = memoryview(message)

    async def next(self) -> bytes:
        """The next bytes. Raises ConnectionAbortedError."""
        self.is_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError(_ABORTED)
        self.is_over = not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        self._count += len(data)
        return data

    async def drain(self) -> bool:
        """Drop the rest, up to the limit. Returns whether the end was reached."""
        count = 0
        try:
            async with asyncio.timeout(self._pace.drain_s):
                while not self.is_over and count < self._pace.drain_bytes:
                    count += len(await self.next())
        except TimeoutError:
            pass
        return self.is_over


class Hop:
    """Runs coroutines in the server's loop on behalf of a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connected) -> None:
        self._loop, self.connection = loop, connection

    def call(self, act: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Return the coroutine's result. Raises TimeoutError, and ConnectionAbortedError if the server has stopped."""
        try:
            future = asyncio.run_coroutine_threadsafe(act, self._loop)
        except RuntimeError:
            act.close()
            raise ConnectionAbortedError(_ABORTED) from None
        try:
            return future.result(max(timeout_s, 0.0))
        except CancelledError:
            raise ConnectionAbortedError(_ABORTED) from None
        except TimeoutError:
            future.cancel()
            raise


class Answer:
    """An application's response, sent in chunks from its thread."""

    def __init__(
        self, send: Callable[[Message], Awaitable[None]], hop: Hop, body: Body, pace: Pace, *, expects: bool
    ) -> None:
        self._send, self._hop, self._body, self._pace, self._expects = send, hop, body, pace, expects
        self.head: Message = {}
        self._left: int | None = None
        self.is_begun = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """WSGI's ``start_response``."""
        encoded = [(name.lower().encode("latin-1"), _encoded(value)) for name, value in headers]
        self.head = {"type": "http.response.start", "status": int(status.partition(" ")[0]), "headers": encoded}
        length = next((value for name, value in encoded if name == b"content-length"), None)
        self._left = None if length is None else int(length)
        return self.stream_piece

    async def whole(self, content: bytes, *, last: bool = True) -> None:
        """Send the head if it was not sent, and a chunk."""
        if not self.is_begun:
            self.is_begun = True
            if not self._body.is_over and (self._waits_for_continue or not last or not await self._body.drain()):
                self.head["headers"].append((b"connection", b"close"))
            if len(content) < _BUFFER:
                with self._hop.connection.joined_writes():
                    await self._send(self.head)
                    await self._piece(content, last=last)
                return
            await self._send(self.head)
        await self._piece(content, last=last)

    async def _piece(self, content: bytes, *, last: bool) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": not last})

    @property
    def _waits_for_continue(self) -> bool:
        """Whether reading the body would make the client send it."""
        return self._expects and not self._body.is_begun

    def stream_piece(self, content: bytes) -> None:
        """Send a chunk from the application's thread. Raises ConnectionAbortedError if the client has disconnected."""
        if self._hop.connection.is_gone:
            raise ConnectionAbortedError(_ABORTED)
        if self._left is not None:
            self._left -= len(content)
        try:
            self._hop.call(self.whole(content, last=self._left == 0), self._pace.write_s + self._pace.drain_s)
        except TimeoutError:
            raise ConnectionAbortedError("the client does not read the response") from None

    def stream(self, chunks: Iterable[bytes]) -> None:
        """Send all chunks."""
        for chunk in chunks:
            if chunk:
                self.stream_piece(chunk)
        if self._left != 0 or not self.is_begun:
            self._hop.call(self.whole(b""), self._pace.write_s + self._pace.drain_s)


class Bridge:
    """The asynchronous application that uvicorn calls."""

    def __init__(
        self, app: WSGIApplication, workers: Workers, pace: Pace, *, most_headers: int, head_bytes: int
    ) -> None:
        self._app, self._workers, self._pace = app, workers, pace
        self._most_headers, self._head_bytes = most_headers, head_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        connection: Connected = scope["state"]["connection"]
        if (fault := self._fault(scope)) is not None:
            await _refuse(send, *fault)
            return
        hop = Hop(asyncio.get_running_loop(), connection)
        names = {name for name, _ in scope["headers"]}
        body = Body(receive, hop, self._pace, is_over=not names & {b"content-length", b"transfer-encoding"})
        answer = Answer(send, hop, body, self._pace, expects=b"expect" in names)
        environ = environment(scope, io.BytesIO() if body.is_over else io.BufferedReader(body, _BUFFER))
        try:
            content = await asyncio.wrap_future(self._workers.submit(lambda: self._act(environ, answer)))
            if content is not None:
                await answer.whole(content)
        except ConnectionError:
            connection.cut(reset=not answer.is_begun)
        except Exception:  # noqa: BLE001 - the connection is closed after any error
            _LOG.exception("the response to %s %s failed", scope["method"], scope["path"])
            connection.cut(reset=not answer.is_begun)

    def _fault(self, scope: MutableMapping[str, Any]) -> tuple[int, bytes] | None:
        """Why a request that h11 accepts is refused: its length, or its resource, is ambiguous."""
        names = [name for name, _ in scope["headers"]]
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in scope["headers"])
        if len(names) > self._most_headers or size > self._head_bytes:
            return 431, b"The headers are too large, or too many."
        is_chunked = b"transfer-encoding" in names
        if is_chunked and (b"content-length" in names or scope["http_version"] != "1.1"):
            return 400, b"Transfer-Encoding with Content-Length, or in HTTP/1.0."
        if not _is_target(scope["raw_path"].decode("ascii")):
            return 400, b"The request target must be a path or an http URL."
        return None

    def _act(self, environ: dict[str, Any], answer: Answer) -> bytes | None:
        """Call the application. Returns the body of a complete response, else sends it."""
        chunks = self._app(environ, answer.start)
        try:
            if isinstance(chunks, list):
                return b"".join(chunks)
            answer.stream(chunks)
            return None
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


def _is_target(path: str) -> bool:
    if path.startswith("/"):
        return True
    try:
        url = urlsplit(path)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.netloc)


async def _refuse(send: Any, status: int, message: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(message)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": message, "more_body": False})


def _encoded(value: str) -> bytes:
    """A header's value: Latin-1, else UTF-8, and never with line breaks."""
    value = value.translate(_LINE_ENDS).strip()
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def environment(scope: MutableMapping[str, Any], body: io.BufferedIOBase) -> dict[str, Any]:
    """WSGI's environment (PEP 3333); ``REQUEST_URI`` is the target as it was sent."""
    path, query = scope["raw_path"].decode("ascii"), scope["query_string"].decode("ascii")
    server, client = scope["server"] or ("", 0), scope["client"] or ("", 0)
    headers: dict[str, str] = {}
    underscored: list[tuple[str, str]] = []
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").upper(), raw_value.decode("latin-1")
        if "_" in name:  # WSGI cannot distinguish it from a hyphen
            underscored.append((name.lower(), value))
            continue
        key = name.replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        headers[key] = f"{headers[key]}{';' if name == 'COOKIE' else ','}{value}" if key in headers else value
    target = f"{path}?{query}" if query else path
    if not path.startswith("/"):
        url = urlsplit(path)
        path, headers["HTTP_HOST"] = url.path or "/", url.netloc
    environ = {
        "REQUEST_METHOD": scope["method"], "SCRIPT_NAME": "", "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query, "REQUEST_URI": target, "RAW_URI": target,
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}", "SERVER_NAME": server[0], "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": client[0], "REMOTE_PORT": client[1], "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"], "wsgi.input": body, "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        **headers,
    }  # fmt: skip
    header_names.keep_underscores(environ, underscored)
    return environ
