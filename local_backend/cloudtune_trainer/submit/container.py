"""An emulated training container of Amazon SageMaker: the folders of /opt/ml, variables, signals.

The job's program runs in a process, with its own folder in place of ``/opt/ml``: in an entry point the path is
replaced, programs read ``SAGEMAKER_BASE_DIR``. Several instances are several processes. The layout, the variables and
the 120 seconds between SIGTERM and SIGKILL are the service's
(https://docs.aws.amazon.com/sagemaker/latest/dg/docker-basics.html, seen 2026-11-21).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.files.archives import extract_tar
from cloudtune_trainer.ports import hold_port
from cloudtune_trainer.sagemaker.entrypoint import Tree

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

ROOT = "/opt/ml"
GRACE_S = 120.0
FAILURE_CHARS = 1024
_SCRIPT, _SOURCE = "sagemaker_program", "sagemaker_submit_directory"
_SHARED_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE",
    "HF_HUB_OFFLINE", "HF_TOKEN",
)  # fmt: skip
"""The environment variables that a container inherits from this machine."""


@dataclass(frozen=True, kw_only=True)
class ContainerJob:
    """The container settings of CreateTrainingJob, with all files from S3 on this machine's disk."""

    name: str
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, str] = field(default_factory=dict)
    """Channel -> a folder with its files, or one file."""
    entrypoint: Sequence[str] = ()
    """ContainerEntrypoint. Without it the job uses script mode: ``source`` is unpacked, and its program started."""
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    """For script mode: the .tar.gz that ``sagemaker_submit_directory`` names."""
    instance_type: str = "ml.m5.large"
    instances: int = 1
    python: str = sys.executable
    """The interpreter in place of the image's."""


class Containers:
    """The containers of one job: created by ``prepare``, then started, followed, stopped."""

    def __init__(self, job: ContainerJob, root: Path) -> None:
        self.job = job
        self.root = root
        self.hosts = tuple(f"algo-{number}" for number in range(1, job.instances + 1))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped_at: float | None = None
        self._failed: int | None = None
        self._port: socket.socket | None = None

    def tree(self, host: str = "algo-1") -> Tree:
        """The folder that replaces /opt/ml on that host."""
        return Tree(self.root / host / "ml")

    def log(self, host: str = "algo-1") -> Path:
        """The standard output and error of that host's program."""
        return self.root / host / "log.txt"

    # -- before ------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the folders. Initial checkpoints are copied into them afterwards."""
        for host in self.hosts:
            tree = self.tree(host)
            for folder in (tree.config, tree.channels, tree.model, tree.output, tree.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            for channel, source in self.job.channels.items():
                _bring(Path(source), tree.channels / channel)
            self._configure(tree, host)
            _write_interpreter(self._bin(host), self.job.python)
            if self.job.entrypoint:
                (tree.root / "code").mkdir(exist_ok=True)
            else:
                self._unpack(tree)

    def _configure(self, tree: Tree, host: str) -> None:
        job = self.job
        resources = {
            "current_host": host, "hosts": list(self.hosts), "network_interface_name": "lo",
            "current_instance_type": job.instance_type, "current_group_name": "homogeneousCluster",
            "instance_groups": [{"instance_group_name": "homogeneousCluster", "instance_type": job.instance_type,
                                 "hosts": list(self.hosts)}],
        }  # fmt: skip
        mode = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
        documents = {
            "hyperparameters": dict(job.hyperparameters),
            "resourceconfig": resources,
            "inputdataconfig": dict.fromkeys(job.channels, mode),
        }
        for name, document in documents.items():
            (tree.config / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")

    def _unpack(self, tree: Tree) -> None:
        if self.job.source is None:
            raise ValueError("a job in script mode has a source: sagemaker_submit_directory")
        extract_tar(Path(self.job.source), tree.root / "code")

    # -- while -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the program on every host."""
        # The hosts' names do not resolve here, and other jobs may use the usual port.
        self._port = hold_port()
        port = str(self._port.getsockname()[1])
        meeting = {"CLOUDTUNE_MASTER_ADDR": "127.0.0.1", "CLOUDTUNE_MASTER_PORT": port}
        for host in self.hosts:
            environment = self._environment(host) | meeting
            with self.log(host).open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        self._command(host), cwd=self.tree(host).root / "code", env=environment,
                        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                    )
                )  # fmt: skip

    def poll(self) -> int | None:
        """The exit status once all hosts have ended: that of the first to fail, else 0.

        No process remains after the grace period.
        """
        if self._stopped_at is not None and time.monotonic() - self._stopped_at > GRACE_S:
            self.kill()
        codes = [process.poll() for process in self._processes]
        if self._failed is None:
            self._failed = next((code for code in codes if code), None)
        if self._failed is not None and None in codes:
            self.stop()  # a job fails if one host fails: the others are stopped
        if None in codes:
            return None
        if self._port is not None:
            self._port.close()
        return self._failed or 0

    def stop(self) -> None:
        """SIGTERM, and after 120 seconds SIGKILL."""
        if self._stopped_at is not None:
            return
        self._stopped_at = time.monotonic()
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    def kill(self) -> None:
        """End everything that was started."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # -- after -------------------------------------------------------------------------------------------------------

    def failure(self) -> str:
        """The program's failure message, truncated as by the service."""
        for host in self.hosts:
            with contextlib.suppress(FileNotFoundError):
                return self.tree(host).failure.read_text(encoding="utf-8", errors="replace")[:FAILURE_CHARS]
        return ""

    def pack(self, to: Path) -> dict[str, Path]:
        """Write ``model.tar.gz`` and ``output.tar.gz``, if there are files, with the files of all hosts."""
        to.mkdir(parents=True, exist_ok=True)
        made = {}
        for name in ("model", "output"):
            folders = [getattr(self.tree(host), name) for host in self.hosts]
            if any(any(folder.iterdir()) for folder in folders):
                made[name] = to / f"{name}.tar.gz"
                pack(folders, made[name])
        return made

    # -- details -----------------------------------------------------------------------------------------------------

    def _bin(self, host: str) -> Path:
        return self.root / host / "bin"

    def _command(self, host: str) -> list[str]:
        base = str(self.tree(host).root)
        if self.job.entrypoint:
            return [part.replace(ROOT, base) for part in (*self.job.entrypoint, *self.job.arguments)]
        given = {name: _plain(value) for name, value in self.job.hyperparameters.items()}
        options = [word for name, value in sorted(given.items()) if not name.startswith("sagemaker_")
                   for word in (f"--{name}", value)]  # fmt: skip
        return [str(self._bin(host) / "python3"), given[_SCRIPT], *options]

    def _environment(self, host: str) -> dict[str, str]:
        tree, job = self.tree(host), self.job
        shared = {name: os.environ[name] for name in _SHARED_VARIABLES if name in os.environ}
        shared["PATH"] = f"{self._bin(host)}{os.pathsep}{shared.get('PATH', os.defpath)}"
        return shared | self._toolkit(host) | {
            "SAGEMAKER_BASE_DIR": str(tree.root), "TRAINING_JOB_NAME": job.name,
            "SAGEMAKER_JOB_NAME": job.name, **{k: str(v) for k, v in job.environment.items()},
        }  # fmt: skip

    def _toolkit(self, host: str) -> dict[str, str]:
        """The variables that AWS's own images set for a script."""
        tree, job = self.tree(host), self.job
        given = {name: _decoded(value) for name, value in job.hyperparameters.items()}
        own = {name: value for name, value in given.items() if not name.startswith("sagemaker_")}
        found = {
            "SM_MODEL_DIR": str(tree.model), "SM_OUTPUT_DATA_DIR": str(tree.output), "SM_HPS": json.dumps(own),
            "SM_OUTPUT_DIR": str(tree.output.parent), "SM_INPUT_DIR": str(tree.channels.parent),
            "SM_INPUT_CONFIG_DIR": str(tree.config), "SM_CHANNELS": json.dumps(sorted(job.channels)),
            "SM_CURRENT_HOST": host, "SM_HOSTS": json.dumps(list(self.hosts)), "SM_NETWORK_INTERFACE_NAME": "lo",
            "SM_NUM_GPUS": "0", "SM_NUM_CPUS": str(os.cpu_count() or 1), "SM_USER_ENTRY_POINT": str(given.get(_SCRIPT)),
        }  # fmt: skip
        found |= {f"SM_CHANNEL_{name.upper()}": str(tree.channels / name) for name in job.channels}
        return found | {f"SM_HP_{name.upper()}": _plain(value) for name, value in own.items()}


def pack(folders: Sequence[Path], to: Path) -> None:
    """Write a .tar.gz of the folders' contents atomically."""
    aside = to.with_name(f".{to.name}.partial")
    with tarfile.open(aside, "w:gz", compresslevel=1) as archive:
        for folder in folders:
            for path in sorted(folder.iterdir()):
                archive.add(path, arcname=path.name)
    aside.replace(to)


def _bring(source: Path, to: Path) -> None:
    """Copy a channel's files, as links if supported: a channel may have gigabytes of weights."""
    to.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        _link(str(source), str(to / source.name))
    else:
        shutil.copytree(source, to, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_interpreter(folder: Path, python: str) -> None:
    """Create the image's ``python3`` as a script: a link would lose a virtual environment."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(python)} "$@"\n', encoding="utf-8")
        path.chmod(0o755)


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _plain(value: Any) -> str:
    value = _decoded(value) if isinstance(value, str) else value
    return value if isinstance(value, str) else json.dumps(value)
