"""The emulator's HTTP server: uvicorn's protocol on its own thread, with limits on everything a client can hold.

Reasons for uvicorn: it runs in a thread on a given socket, supports TLS, answers ``Expect: 100-continue`` only when the
body is read, streams bodies both ways with back pressure, and parses with h11, which is strict and never allocates
memory for a declared length. Waiting connections use no thread: a request gets one when its head is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import struct
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from cloudtune_emulator.wsgi_bridge import Bridge, Connected, Pace, Workers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from wsgiref.types import WSGIApplication

_PROTOCOL_LOG = logging.getLogger(f"{__name__}.protocol")
_PROTOCOL_LOG.setLevel(logging.ERROR)  # uvicorn warns of every request that is not HTTP
_BACKLOG = 1024
_RESET = struct.pack("ii", 1, 0)
_JOIN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on clients. Sizes are in bytes, times in seconds."""

    head_bytes: int = 64 << 10
    """The request line and the headers together; also one chunk header, and the trailers."""
    headers: int = 200
    connections: int = 1000
    """At the limit, the connection that has waited longest for a request is closed. The limit is lower if the process
    can open only few files."""
    threads: int = 256
    """Requests that are executed at the same time; others wait."""
    head_s: float = 20.0
    """From the first byte of a request, or from the connection, to the end of the headers."""
    keep_alive_s: float = 120.0
    handshake_s: float = 20.0
    pace: Pace = field(default_factory=Pace)

    def fitted(self) -> Limits:
        """Return limits in which connections use at most three quarters of the process's file limit."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return self
        return replace(self, connections=max(1, min(self.connections, files * 3 // 4)))


class _JoinedWrites:
    """A transport that can buffer writes: uvicorn writes the head, the body and the end one by one."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send or buffer."""
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(data)

    def hold(self) -> None:
        """Buffer writes."""
        self._held = []

    def release(self) -> None:
        """Send the buffer."""
        held, self._held = self._held, None
        if held:
            self._transport.write(b"".join(held))

    def write_eof(self) -> None:
        """Send all, then the end."""
        self.release()
        self._transport.write_eof()

    def close(self) -> None:
        """Send all, then close."""
        self.release()
        self._transport.close()


class Connection(H11Protocol):
    """One client: uvicorn's protocol, and a deadline for the head of each request."""

    def __init__(self, config: Config, state: ServerState, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {}, loop)
        self.app_state = {"connection": cast("Connected", self)}
        self.logger = _PROTOCOL_LOG
        self.access_log = False
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._is_refused = False
        self.since = loop.time()
        """When this connection began to wait for a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Close another connection if there are too many, and wait for a request."""
        super().connection_made(transport)
        self._writes = _JoinedWrites(transport)
        self.transport = cast("asyncio.Transport", self._writes)
        channel = transport.get_extra_info("socket")
        if channel is not None:  # asyncio does so only for sockets with a protocol number
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._limits.connections:
            self._make_room()
        self._watch_head()

    def _make_room(self) -> None:
        present = [one for one in map(_ours, self.connections) if not one.is_gone]
        if len(present) > self._limits.connections:
            waiting = [one for one in present if one is not self and one.is_waiting]
            min(waiting, key=lambda one: one.since, default=self).transport.abort()

    @property
    def is_waiting(self) -> bool:
        """Whether the server waits for the head of a request."""
        return self.conn.their_state is h11.IDLE

    def data_received(self, data: bytes) -> None:
        """Continue reading."""
        if self._is_refused:
            return
        super().data_received(data)
        self._watch_head()

    def _watch_head(self) -> None:
        if self._is_refused:
            return
        if not self.is_waiting or self.transport.is_closing():
            self._forget_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.head_s, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        if self.is_waiting:
            self.transport.abort()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP, also in a body that is being read."""
        self._forget_deadline()
        cycle, scope = getattr(self, "cycle", None), getattr(self, "scope", None)  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self.abandon()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        self._is_refused = True
        headers = [("content-type", "text/plain"), ("content-length", str(len(msg))), ("connection", "close")]
        answer = self.conn.send(h11.Response(status_code=400, headers=headers, reason=b"Bad Request")) or b""
        if scope is None or scope["method"] != "HEAD":
            answer += self.conn.send(h11.Data(data=msg.encode())) or b""
        self.transport.write(answer)
        with contextlib.suppress(OSError):  # the client has disconnected
            if self.transport.can_write_eof():
                self.transport.write_eof()
        # An immediate close with unread bytes would reset the connection, and the client would not get the response.
        self._deadline = self.loop.call_later(self._limits.pace.drain_s, self.transport.abort)

    def abandon(self) -> None:
        """Make the current request see that the client has disconnected."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def cut(self, *, reset: bool) -> None:
        """Close without the rest of the response. ``reset`` drops unsent bytes."""
        self.abandon()
        if not reset:
            self.transport.close()
            return
        channel = self.transport.get_extra_info("socket")
        if channel is not None and not self.transport.is_closing():
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    @contextlib.contextmanager
    def joined_writes(self) -> Iterator[None]:
        """Join the writes in this block into one."""
        self._writes.hold()
        try:
            yield
        finally:
            self._writes.release()

    @property
    def is_gone(self) -> bool:
        """Whether the client can no longer read."""
        return self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._forget_deadline()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)


def _ours(connection: object) -> Connection:
    assert isinstance(connection, Connection)
    return connection


class HttpServer:
    """Serves a WSGI application on a listening socket, and takes ownership of the socket."""

    def __init__(
        self,
        app: WSGIApplication,
        listening: socket.socket,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = (limits or Limits()).fitted()
        self._listening = listening
        self._tls = tls
        self._workers = Workers(self._limits.threads)
        bridge = Bridge(
            app, self._workers, self._limits.pace,
            most_headers=self._limits.headers, head_bytes=self._limits.head_bytes,
        )  # fmt: skip
        self._config = Config(
            bridge, interface="asgi3", ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False,
            timeout_keep_alive=cast("int", self._limits.keep_alive_s),
            h11_max_incomplete_event_size=self._limits.head_bytes,
        )  # fmt: skip
        self._state = ServerState()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._ready = threading.Event()

    @property
    def connections(self) -> int:
        """The number of connected clients."""
        return len(self._state.connections)

    def start(self) -> None:
        """Serve from a thread. Clients that connected before are served too."""
        self._config.load()
        self._thread = threading.Thread(target=self._run, name="cloudtune-emulator", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        over_tls: dict[str, Any] = {}
        if self._tls is not None:
            over_tls = {"ssl": self._tls, "ssl_handshake_timeout": self._limits.handshake_s, "ssl_shutdown_timeout": 5}
        server = await loop.create_server(
            lambda: Connection(self._config, self._state, self._limits, loop),
            sock=self._listening, backlog=_BACKLOG, **over_tls,
        )  # fmt: skip
        self._ready.set()
        await self._over.wait()
        server.close()
        for connection in list(self._state.connections):
            _ours(connection).cut(reset=True)
        await asyncio.sleep(0)  # the transports report that they are lost
        for task in list(self._state.tasks):
            task.cancel()

    def stop(self) -> None:
        """Stop listening and close every connection. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
            thread.join(_JOIN_S)
        self._workers.stop()
        self._listening.close()
