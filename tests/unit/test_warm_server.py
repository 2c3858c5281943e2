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


_TAKES = """
import os, resource, server, sys
fds = [os.open(name, os.O_RDONLY) for name in sys.argv[1:]]
kept = fds[3]
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
server._take_descriptors([fds[1], fds[2], fds[0], kept, 15], fds)
found = [os.read(number, 9).decode() for number in (fds[1], fds[2], fds[0], kept, 15)]
assert found == ["0", "1", "2", "3", "4"], found
assert all(map(os.get_inheritable, (*fds[:4], 15)))
assert not {0, 1, 2, fds[4]} & set(map(int, os.listdir("/proc/self/fd"))) - {0}
os._exit(7)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")
def test_descriptors_are_taken_with_few_of_them(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(5)]
    for file in files:
        file.write_text(file.name, encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVER.parent)}
    done = subprocess.run([sys.executable, "-c", _TAKES, *files], env=environment, check=False)
    assert done.returncode == 7
