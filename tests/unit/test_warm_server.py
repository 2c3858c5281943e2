"""The warm server of the tests outlives its clients."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[1] / "warm" / "server.py"


def connected(place: str) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            client.connect(place)
        except OSError:
            client.close()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return client


@pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")
def test_a_killed_client_does_not_end_the_server() -> None:
    order = b'{"facts": null}'  # of another environment
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/server"
        server = subprocess.Popen([sys.executable, SERVER, place], stdin=subprocess.PIPE)
        try:
            killed = connected(place)
            server.send_signal(signal.SIGSTOP)
            os.waitpid(server.pid, os.WUNTRACED)
            killed.send(order)
            killed.close()
            server.send_signal(signal.SIGCONT)
            with connected(place) as client:
                client.send(order)
                assert client.recv(64) == b"cold"
        finally:
            server.kill()
            server.communicate()
