"""Bytes that are no HTTP, or hardly: the server lives, forgets them, and serves everybody else meanwhile."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psutil
import pytest
import urllib3
from tests.emulator.raw_http import HANG_S, connect, head, read_answers

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.http_server import Limits
from cloudtune_emulator.wsgi_bridge import Pace

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

MB = 1 << 20
PATHS = [
    "/v1/models",
    "/v1/files",
    "/v1/fine_tuning/jobs",
    "/openai/v1/files",
    "/blobs/emulated/c/b",
    "/",
    "/%FF%00",
    "/model/a.b/converse",
    "/cloudtune-emulated/k",
    "/_emulator/store",
    "/v1/files?limit=%FF",
    "//",
    "/v1//models",
]
LINES = [
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding:",
    "Content-Length: 5",
    "Content-Length: 05",
    "Content-Length: -1",
    "Content-Length: 1e3",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5, 5",
    "Expect: 100-continue",
    "Expect: x",
    "Connection: close",
    "Connection: keep-alive, x",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: x",
    "Host: x",
    "Host:",
    "X: \x00",
    "X: a\rb",
    "X: a\nb",
    "X:",
    " folded",
    "\tfolded",
    "X Y: z",
    ": z",
    "X",
    "X: \xff\xfe",
    "X: " + "y" * 5000,
    "Content-Type: multipart/form-data",
    "Content-Type: multipart/form-data; boundary=" + "b" * 200,
    "Content-Type: \xe9",
    "Authorization: Bearer",
    "Authorization: AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
    "Range: bytes=9-1",
    "Cookie: " + "a=b; " * 100,
    "X_Y: z",
    "Content-Encoding: gzip",
    "Accept-Encoding: gzip",
]
CHUNKS = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n",
    b"FFFFFFFFFFFFFFF\r\nx",
    b"g\r\n",
    b"5\r\nhelloX",
    b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"00000000000000000000005\r\nhello\r\n",
    b"5\nhello\n0\n\n",
    b"\r\n\r\n",
    b"5\r\nhe",
    b"0\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    b"1\r\n{\r\n" * 200 + b"0\r\n\r\n",
]
FOREIGN = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /\r\n",
    b"\r\n" * 100,
    b"\x00" * 100,
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"get / http/1.1\r\nhost: x\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://other/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"G" * 1000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"Host: x\r\n\r\n",
]


class Sender:
    """Sends one thing after another; what is left half-open is held for a while."""

    def __init__(self, emulator: Emulator, seed: int) -> None:
        self._emulator, self._dice = emulator, random.Random(seed)
        self._held: list[socket.socket] = []
        self.count = 0

    def send(self) -> None:
        sent, wanted = self._made()
        channel = connect(self._emulator)
        with suppress(ConnectionError):
            if len(sent) > 1 and self._dice.random() < 0.2:  # in two pieces
                cut = self._dice.randrange(1, len(sent))
                channel.sendall(sent[:cut])
                sent = sent[cut:]
            channel.sendall(sent)
            if wanted:
                read_answers(channel, 1)
        if wanted or self._dice.random() < 0.7:
            channel.close()
            return
        self._held.append(channel)
        if len(self._held) > 20:
            self._held.pop(0).close()

    def close(self) -> None:
        for channel in self._held:
            channel.close()

    def _made(self) -> tuple[bytes, bool]:
        """What to send, and whether it is to be answered whatever it is."""
        rng = self._dice
        kind = rng.random()
        if kind < 0.15:
            self.count += 1
            return rng.choice(FOREIGN), False
        parts = [self._request() for _ in range(rng.choice([1, 1, 1, 2, 5]))]
        self.count += len(parts)
        sent = b"".join(parts)
        if kind < 0.45:
            return sent, False
        if kind < 0.6:
            return sent[: rng.randrange(len(sent))], False
        if kind < 0.8:
            changed = bytearray(sent)
            for _ in range(rng.randint(1, 6)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed), False
        return head("GET", rng.choice(PATHS), key=self._key()) + sent, True

    def _key(self) -> str:
        return self._dice.choice([self._emulator.settings.api_key, "no"])

    def _request(self) -> bytes:
        rng = self._dice
        method, path = rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]), rng.choice(PATHS)
        if rng.random() < 0.4:
            return head(method, path, key=self._key())
        if rng.random() < 0.5:
            return head(method, path, "Transfer-Encoding: chunked", key=self._key()) + rng.choice(CHUNKS)
        lines = [rng.choice(LINES) for _ in range(rng.randint(0, 4))]
        return head(method, path, *lines, key=self._key()) + rng.choice([b"", b"{}", b"hello", b"\xff" * 50, *CHUNKS])


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    pace = Pace(idle_s=0.5, grace_s=1, drain_s=0.3, write_s=2)
    limits = Limits(head_s=1, keep_alive_s=1, connections=100, threads=32, pace=pace)
    with Emulator(Settings(), scale=0, limits=limits) as emulator:
        yield emulator


class Neighbor:
    """A client like any other, beside."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator, self._over = emulator, threading.Event()
        self.served, self.slowest, self.wrong = 0, 0.0, ""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        pool = urllib3.PoolManager()
        headers = {"Authorization": f"Bearer {self._emulator.settings.api_key}", "Connection": "close"}
        while not self._over.wait(0.02):
            begun = time.monotonic()
            try:
                answer = pool.request("GET", f"{self._emulator.url}/v1/models", headers=headers, timeout=HANG_S)
            except urllib3.exceptions.HTTPError as error:
                self.wrong = self.wrong or repr(error)
                continue
            if answer.status != 200:
                self.wrong = self.wrong or f"{answer.status} {answer.data!r}"
            self.served += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)


@pytest.mark.parametrize(
    "count", [pytest.param(400, id="few"), pytest.param(300_000, id="many", marks=pytest.mark.soak)]
)
def test_hostile_bytes_harm_nobody(emulator: Emulator, caplog: pytest.LogCaptureFixture, count: int) -> None:
    caplog.set_level(logging.ERROR)
    sender, begun = Sender(emulator, count), time.monotonic()
    with Neighbor(emulator) as neighbor:
        for _ in range(100):
            sender.send()
        before = psutil.Process().memory_info().rss
        while sender.count < count:
            sender.send()
        grown = psutil.Process().memory_info().rss - before
    sender.close()
    took = time.monotonic() - begun
    print(
        f"{sender.count} requests, {sender.count / took:.0f} a second, {grown / MB:.0f} MB more memory, "
        f"{neighbor.served} others served, the slowest in {neighbor.slowest:.1f} s"
    )
    assert not [record.exc_info for record in caplog.records if record.exc_info]
    assert not neighbor.wrong
    assert neighbor.served
    assert grown < 150 * MB
    ends = time.monotonic() + HANG_S
    while emulator.http.connections and time.monotonic() < ends:
        time.sleep(0.05)
    assert emulator.http.connections == 0
