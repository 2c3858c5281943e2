"""Bytes on a socket, as no HTTP library would send them."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudtune_emulator import Emulator

HANG_S = 60.0
"""Nothing takes this long but a hang."""


def connect(emulator: Emulator) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2])), timeout=HANG_S)


def read_all(channel: socket.socket) -> bytes:
    """Everything until the server closes. Raises TimeoutError where it does not."""
    found = b""
    try:
        while block := channel.recv(1 << 16):
            found += block
    except ConnectionError:
        pass
    return found


def read_answers(channel: socket.socket, count: int) -> bytes:
    """Until that many heads have come, or the server closes."""
    found = b""
    try:
        while found.count(b"HTTP/1.1 ") < count or b"\r\n\r\n" not in found:
            block = channel.recv(1 << 16)
            if not block:
                break
            found += block
    except ConnectionError:
        pass
    return found


def ask(emulator: Emulator, sent: bytes, count: int = 1) -> bytes:
    """The answers to what is sent."""
    with connect(emulator) as channel:
        with contextlib.suppress(ConnectionError):
            channel.sendall(sent)
        return read_answers(channel, count)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def head(method: str, path: str, *lines: str, key: str = "no") -> bytes:
    """A request's head with the key."""
    reported = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *lines, "", ""]
    return "\r\n".join(reported).encode("latin-1")
