"""One process of the group, started and watched by an actor on the node where Ray placed it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune_trainer.folder import read_json
from cloudtune_trainer.ports import hold_port
from cloudtune_trainer.private_files import opener
from cloudtune_trainer.worker.run import Run
from cloudtune_trainer.worker.trainer_process import dies_with_parent

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


class Place(NamedTuple):
    """What a member finds on its node."""

    address: str
    """The node's address in the cluster."""
    port: int
    """A free port, held for the group's rendezvous."""
    problem: str | None
    """Why the job cannot run on this node."""


class Member:
    """The actor. All its methods return at once."""

    def __init__(self, folder: str) -> None:
        self._run = Run(folder)
        python = str(self._run.recorded_job().get("python", ""))
        self._python = python if "/" in python else sys.executable
        self._process: subprocess.Popen[bytes] | None = None
        self._held: socket.socket | None = None
        self._address = ""

    def look(self, digest: str) -> Place:
        """Whether this node sees the run and its model, and where the group can meet on it."""
        import ray

        self._address = address = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._held = hold_port(address)
        return Place(address, self._held.getsockname()[1], self._problem(digest, address))

    def _problem(self, digest: str, address: str) -> str | None:
        spec = digest_of(self._run.spec)
        if spec is None:
            return f"node {address} does not see {self._run.path}: mount the shared folder there, at the same path"
        if spec != digest:
            return f"node {address} sees another {self._run.spec}: its shared folder is not the head node's"
        model = (read_json(self._run.spec) or {}).get("model") or {}
        if model.get("source") != "hub" and not Path(model.get("path", "")).exists():
            return f"node {address} does not see the model {model.get('path')}: put it into the shared folder"
        return None

    def start(self, rank: int, group: Mapping[str, str]) -> None:
        """Start the process of that rank."""
        log = self._run.log if rank == 0 else self._run.path / f"log-{rank}.txt"
        with open(log, "ab", opener=opener) as file:
            self._process = subprocess.Popen(
                [self._python, "-P", "-m", "cloudtune_trainer", str(self._run.path)],
                cwd=self._run.path,
                env=_environment() | dict(group) | {"RANK": str(rank)} | _interface_of(self._address),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                umask=0o077,
                preexec_fn=dies_with_parent(),  # noqa: PLW1509 - if Ray kills this actor, the trainer must end too
            )

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def send(self, number: int) -> None:
        """Signal the process."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.Signals(number))


def digest_of(path: Path) -> str | None:
    """The SHA-256 of that file, or None if this node does not see it."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _environment() -> dict[str, str]:
    """The environment of the trainer: this actor's, without Ray's own variables."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, found.get("PYTHONPATH", "").split(os.pathsep))]
    return found | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "CLOUDTUNE_PROCESSES": "1"}


def _interface_of(address: str) -> dict[str, str]:
    """The network interface of the node's address: by default gloo takes that of the host's name, often loopback."""
    import psutil  # comes with Ray

    found: dict[str, Any] = psutil.net_if_addrs()
    name = next((name for name, all_of in found.items() if any(each.address == address for each in all_of)), None)
    return {} if name is None else {variable: os.environ.get(variable, name) for variable in _INTERFACES}
