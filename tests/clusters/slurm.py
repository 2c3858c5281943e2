"""A real Slurm cluster for tests: one controller and two nodes on this machine, without accounting.

It is started once for all workers of a test run, by the first test that needs it, and ended with that run: the
process that started it holds a lock, and a guard ends the daemons, by their pids, when every user of it is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2")
START_S = 60.0
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
CommunicationParameters=NoInAddrAny
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=3
MinJobAge=3600
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL State=UP PriorityTier=10 PreemptMode=off
PartitionName=short Nodes=ALL State=UP MaxTime=10
PartitionName=closed Nodes=ALL State=DOWN
"""


@dataclass(frozen=True)
class SlurmCluster:
    """The cluster of this test run."""

    folder: Path

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def command(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=True).stdout

    def pid(self, daemon: str) -> int:
        return int((self.folder / f"{daemon}.pid").read_text())

    def start_daemon(self, *argv: str) -> None:
        subprocess.run(argv, env=self.environment, check=True, capture_output=True)

    def start_controller(self) -> None:
        self.start_daemon("slurmctld", "-f", str(self.conf))

    def start_node(self, name: str) -> None:
        self.start_daemon("slurmd", "-f", str(self.conf), "-N", name, "-d", str(shutil.which("slurmstepd")))

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):
                if self.command("sinfo", "--noheader", "--format=%t", "--partition=main").split() == ["idle"]:
                    return
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-3000:]
            time.sleep(0.2)

    def stop(self) -> None:
        for process in psutil.process_iter():  # slurmd leaves running jobs alone, and each has a slurmstepd
            with contextlib.suppress(psutil.Error):
                environment = process.environ()
                if "SLURM_JOB_ID" in environment and environment.get("SLURM_CONF") == str(self.conf):
                    parent = process.parent()
                    if parent is not None and parent.name().startswith("slurmstepd"):
                        parent.kill()
                    process.kill()
        for file in self.folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def missing() -> str:
    """Why there is no Slurm here; empty if there is."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return (
        f"Slurm is not installed: no {', '.join(lacking)} (apt-get install slurmctld slurmd slurm-client)"
        if lacking
        else ""
    )


@contextlib.contextmanager
def shared_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """The cluster in that folder, which all workers of a run share; the last one that leaves ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = SlurmCluster(folder)
    with _locked(folder):
        users = _users(folder)
        if not users:
            _start(cluster)
        _write_users(folder, [*users, os.getpid()])
    try:
        yield cluster
    finally:
        with _locked(folder):
            left = [pid for pid in _users(folder) if pid != os.getpid()]
            _write_users(folder, left)
            if not left:
                cluster.stop()


def _start(cluster: SlurmCluster) -> None:
    cluster.stop()  # of a run whose workers were killed
    folder, host = cluster.folder, socket.gethostname()
    shutil.rmtree(folder / "state", ignore_errors=True)
    (folder / "state").mkdir()
    ports = _free_ports(1 + len(NODES))
    line = "NodeName={0} NodeHostname={1} NodeAddr=127.0.0.1 Port={2} CPUs=400 RealMemory=1000"
    nodes = "\n".join(line.format(name, host, port) for name, port in zip(NODES, ports[1:], strict=True))
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    cluster.conf.write_text(_CONF.format(folder=folder, host=host, user=user, port=ports[0], nodes=nodes))
    for name in NODES:
        (folder / f"spool-{name}").mkdir(exist_ok=True)
    cluster.start_controller()
    for name in NODES:
        cluster.start_node(name)
    cluster.wait_ready()


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _users(folder: Path) -> list[int]:
    try:
        pids = [int(word) for word in (folder / "users").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _write_users(folder: Path, pids: list[int]) -> None:
    (folder / "users").write_text(" ".join(map(str, pids)))
