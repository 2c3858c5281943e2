"""A real OpenSSH server on loopback, with its own configuration, host key and user key."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = "/usr/sbin/sshd"
HOST = "gpu-box"
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AcceptEnv none
"""
_CLIENT = """\
Host {host} other-box
    HostName 127.0.0.1
    Port {port}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
    ControlMaster auto
    ControlPath {folder}/m-%n
    ControlPersist 20
Host stranger
    HostName 127.0.0.1
    Port {port}
    IdentityFile {folder}/other_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    HostKeyAlias {host}
    StrictHostKeyChecking yes
"""


@dataclass(frozen=True)
class SshServer:
    """The server, and the client's configuration by which it is found."""

    folder: Path
    port: int

    @property
    def config(self) -> str:
        return str(self.folder / "config")

    def stop(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "sshd.pid").read_text()), signal.SIGTERM)

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        subprocess.run([SSHD, "-f", self.folder / "sshd_config", "-E", self.folder / "log"], check=True)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)


def missing() -> str:
    """Why there is no OpenSSH server here; empty if there is."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        return "OpenSSH is not installed (apt-get install openssh-server openssh-client)"
    if os.getuid() != 0 and not Path("/run/sshd").is_dir():
        return "only root can create /run/sshd"
    return ""


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """A server of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    for name in ("host_key", "user_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    names = f"[127.0.0.1]:{port},{HOST}"
    (folder / "known_hosts").write_text(f"{names} {host_key}\n")
    (folder / "sshd_config").write_text(_SERVER.format(folder=folder, port=port))
    (folder / "config").write_text(_CLIENT.format(folder=folder, port=port, host=HOST))
    server = SshServer(folder, port)
    server.start()
    try:
        yield server
    finally:
        subprocess.run(["ssh", "-F", server.config, "-O", "exit", HOST], capture_output=True, check=False)
        server.stop()
