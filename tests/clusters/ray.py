"""A real Ray cluster for tests: a head node and a second node on this machine, each with its own loopback address.

It is started once for all workers of a test run, by the first test that needs it. The last worker that leaves ends it:
each node is a session of processes, which are ended by their pids. (``ray stop`` would end every Ray of the machine.)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from tests.clusters.slurm import _free_ports, _locked, _users, _write_users

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ATTEMPTS = 5
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
"""Ray replaces 127.0.0.1 by the machine's own address; these stay on loopback."""


@dataclass(frozen=True)
class RayCluster:
    """The cluster of this test run."""

    folder: Path
    port: int
    dashboard: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start_head(self) -> None:
        words = ("--head", f"--port={self.port}", f"--node-ip-address={HEAD}", "--dashboard-host=127.0.0.1",
                 f"--dashboard-port={self.dashboard}", f"--temp-dir={self.folder / 't'}")  # fmt: skip
        self._start("head", words, alive=1)

    def start_second(self) -> None:
        words = (f"--address={HEAD}:{self.port}", f"--node-ip-address={SECOND}")
        self._start("second", words, alive=2)

    def _start(self, name: str, words: Sequence[str], *, alive: int) -> None:
        """Start a node. Ray gives up after 30 seconds, which are not enough on a busy machine."""
        for _ in range(ATTEMPTS):
            process = self._launch(name, words)
            while process.poll() is None:
                if self._alive() >= alive:
                    process.returncode = 0  # from now on `kill` ends it, perhaps in another process
                    return
                time.sleep(0.5)
            self.kill(name)
        raise AssertionError((self.folder / f"{name}.log").read_text(errors="replace")[-3000:])

    def _alive(self) -> int:
        """The number of nodes that the cluster knows."""
        url = f"{self.address}/nodes?view=summary"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode().count('"ALIVE"')
        return 0

    def _launch(self, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        settings = {
            "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"} | settings
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *words,
                 f"--dashboard-agent-listen-port={_free_ports(1)[0]}", "--num-cpus=2",
                 "--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0"],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        return process

    def kill(self, name: str) -> None:
        """End a node at once, with everything that runs on it."""
        file = self.folder / f"{name}.pid"
        with contextlib.suppress(FileNotFoundError):
            session = int(file.read_text())
            for process in psutil.process_iter():
                with contextlib.suppress(OSError, psutil.Error):
                    if os.getsid(process.pid) == session:
                        os.kill(process.pid, signal.SIGKILL)
            file.unlink()


def missing() -> str:
    """Why there is no Ray here; empty if there is."""
    import importlib.util

    return "" if importlib.util.find_spec("ray") else "Ray is not installed"


@contextlib.contextmanager
def shared_cluster(folder: Path) -> Iterator[RayCluster]:
    """The cluster which all workers of a run share; the last one that leaves ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "cluster.json"
    with _locked(folder):
        users = _users(folder)
        if users and known.exists():
            port, dashboard, place = json.loads(known.read_text())
            cluster = RayCluster(Path(place), port, dashboard)
        else:
            place = tempfile.mkdtemp(prefix="ray-")  # the paths of Ray's sockets must be short
            port, dashboard = _free_ports(2)
            cluster = RayCluster(Path(place), port, dashboard)
            cluster.start_head()
            cluster.start_second()
            known.write_text(json.dumps([port, dashboard, place]))
        _write_users(folder, [*users, os.getpid()])
    try:
        yield cluster
    finally:
        with _locked(folder):
            left = [pid for pid in _users(folder) if pid != os.getpid()]
            _write_users(folder, left)
            if not left:
                for name in ("second", "head"):
                    cluster.kill(name)
                known.unlink(missing_ok=True)
