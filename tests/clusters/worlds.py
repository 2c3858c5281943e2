"""Back ends with run folders as the contract suite sees them: the real engine, and a trainer that takes orders."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.clusters.sshd import HOST
from tests.local.backend.directed import MANY, LocalWorld

from cloudtune.clock import SystemClock
from cloudtune.testing.world import Recipe
from cloudtune_providers.run_folders.access import Folders
from cloudtune_providers.slurm.backend import SlurmBackend
from cloudtune_providers.slurm.options import Options as SlurmOptions
from cloudtune_providers.ssh.backend import SshBackend
from cloudtune_providers.ssh.options import Options as SshOptions
from cloudtune_trainer.submit.bundle import Bundle, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.clusters.slurm import SlurmCluster
    from tests.clusters.sshd import SshServer

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock


def directed_python(script: Path, stage: Path, trained: Path, *more: Path) -> None:
    """An interpreter that runs everything, except that its trainer is the one that takes orders."""
    import tests.local.backend.directed_trainer as program

    paths = os.pathsep.join(str(Path(path).absolute()) for path in (*sys.path, *more) if path)
    real, home = Path(sys.executable).resolve(), sys.base_prefix
    script.write_text(
        "#!/bin/bash\n"
        f'case " $* " in *" -m cloudtune_trainer "*)\n'
        f'  PYTHONPATH="{paths}" exec "{sys.executable}" "{program.__file__}" "{stage}" "{trained}" "$@";; esac\n'
        f'export PYTHONHOME="{home}" PYTHONPATH="$PYTHONPATH:{paths}"\n'
        f'exec -a "$0" "{real}" "$@"\n'
    )
    script.chmod(0o755)


def no_code() -> Bundle:
    """An archive that is the same whatever the trainer's code: the interpreter of these tests finds that itself."""
    content = pack({"README": b"for tests"})
    return Bundle(content, hashlib.sha256(content).hexdigest())


def open_slurm(root: str, conf: str) -> tuple[Backend, Clock]:
    """The recipe."""
    os.environ["SLURM_CONF"] = conf
    place = Path(root)
    options = SlurmOptions(folder=f"{root}/runs", python=str(place / "directed-python"))
    return SlurmBackend(options, code=no_code), SystemClock()


class SlurmWorld(LocalWorld):
    """Jobs of a real Slurm controller."""

    def __init__(self, root: Path, trained: Path, cluster: SlurmCluster) -> None:
        super().__init__(root, trained)
        self.cluster = cluster
        self.sdk_modules = ()
        self.lacks = {**self.lacks, "sdk": "it needs Slurm's programs, and no Python package"}

    def _python(self, trained: Path) -> None:
        directed_python(self.root / "directed-python", self.stage, trained)

    def recipe(self) -> Recipe:
        arguments = {"root": str(self.root), "conf": str(self.cluster.conf)}
        return Recipe(target="tests.clusters.worlds:open_slurm", arguments=arguments)

    def jobs(self) -> Sequence[str]:
        """From the controller's own list."""
        lines = self.cluster.command("squeue", "--noheader", "--states=all", "--format=%A|%j|%o|%k").splitlines()
        mine = {path.parent.name for path in self.runs.glob("*/job.json")}
        found = [(int(number), name) for number, name, *_ in (line.split("|") for line in lines) if name in mine]
        return [name for _, name in sorted(found)]

    def uploads(self) -> Sequence[str]:
        return sorted(str(path) for path in self.runs.glob(".files/rows/*"))

    def close(self) -> None:
        names = [path.parent.name for path in self.runs.glob("*/job.json")]
        if names:
            self.cluster.command("scancel", "--full", f"--name={','.join(names)}")


def open_ssh(root: str, config: str) -> tuple[Backend, Clock]:
    """The recipe."""
    options = SshOptions(
        host=HOST, folder=f"{root}/runs", python=f"{root}/directed-python", ssh_config=config, slots=MANY, grace=5.0
    )
    return SshBackend(options, code=no_code), SystemClock()


class SshWorld(LocalWorld):
    """Jobs of a machine behind a real OpenSSH server."""

    def __init__(self, root: Path, trained: Path, server: SshServer) -> None:
        super().__init__(root, trained)
        self.server = server
        self.sdk_modules = ()
        self.lacks = {**self.lacks, "sdk": "it needs the OpenSSH client, and no Python package"}

    def _python(self, trained: Path) -> None:
        packages = self.root / "packages"
        (packages / "bitsandbytes").mkdir(parents=True)  # qlora needs it; the trainer of these tests does not import it
        (packages / "bitsandbytes" / "__init__.py").touch()
        directed_python(self.root / "directed-python", self.stage, trained, packages)

    def recipe(self) -> Recipe:
        arguments = {"root": str(self.root), "config": self.server.config}
        return Recipe(target="tests.clusters.worlds:open_ssh", arguments=arguments)

    def near(self) -> Backend:
        """Waits without ssh, which costs a process for each look."""
        backend = self.backend()
        assert isinstance(backend, SshBackend)
        backend.jobs.folders = lambda _: Folders(str(self.runs), None, "")  # type: ignore[method-assign]
        return backend

    def uploads(self) -> Sequence[str]:
        return sorted(str(path) for path in self.runs.glob(".files/rows/*"))
