"""One file, one word: the quickstart's job on real Ray and Slurm clusters, and behind a real OpenSSH server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clusters.sshd import HOST
from tests.examples.conftest import Quickstart, copied, made_tiny
from tests.examples.test_one_word import ASKED, losses

from cloudtune import Client, GenerateOptions, Job

if TYPE_CHECKING:
    from tests.clusters.ray import RayCluster
    from tests.clusters.slurm import SlurmCluster
    from tests.clusters.sshd import SshServer

pytestmark = pytest.mark.starts_trainer
LIMIT_S = 500


@dataclass
class Runs:
    """The quickstart's folder, and its job on each back end."""

    quickstart: Quickstart
    environment: dict[str, str]
    done: dict[str, Job] = field(default_factory=dict)

    def on(self, backend: str) -> Job:
        if backend not in self.done:
            command = [
                str(Path(sys.executable).with_name("cloudtune")),
                "run",
                str(self.quickstart.folder / "job.yaml"),
            ]
            words = ["--backend", backend, "--set", f"overrides.{backend}.threads=1", "--yes", "--json"]
            found = subprocess.run(
                [*command, *words], env=self.environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
            )
            assert found.returncode == 0, found.stdout + found.stderr
            self.done[backend] = Client(backend).attach(json.loads(found.stdout)["ref"])
        return self.done[backend]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    quickstart = made_tiny(copied(tmp_path_factory.mktemp("clusters")))
    return Runs(quickstart, dict(quickstart.environment))


def weights(job: Job, to: Path) -> bytes:
    (file,) = [file for file in job.export(to) if file.name == "adapter_model.safetensors"]
    return file.read_bytes()


@pytest.mark.timeout(600)  # torch is imported on the node
@pytest.mark.parametrize("backend", [pytest.param("ray", marks=pytest.mark.soak), "slurm", "ssh"])
def test_one_file_and_one_word(
    runs: Runs, backend: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"CLOUDTUNE_HOME": str(runs.quickstart.home)}
    if backend == "slurm":
        cluster: SlurmCluster = request.getfixturevalue("slurm_cluster")
        settings |= {"SLURM_CONF": str(cluster.conf), "CLOUDTUNE_BACKENDS__SLURM__FOLDER": str(tmp_path / "shared")}
    elif backend == "ray":
        ray: RayCluster = request.getfixturevalue("ray_cluster")
        named = {"ADDRESS": ray.address, "SHARED_FOLDER": str(tmp_path / "shared"), "PYTHON": sys.executable}
        settings |= {f"CLOUDTUNE_BACKENDS__RAY__{name}": value for name, value in named.items()}
    else:
        server: SshServer = request.getfixturevalue("ssh_machine")
        named = {"HOST": HOST, "FOLDER": str(tmp_path / "runs"), "PYTHON": sys.executable, "SSH_CONFIG": server.config}
        settings |= {f"CLOUDTUNE_BACKENDS__SSH__{name}": value for name, value in named.items()}
    runs.environment |= settings
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    job, local = runs.on(backend), runs.on("local")
    curve = losses(job)
    assert [step for step, _ in curve] == list(range(1, 9))
    assert curve[-1][1] < curve[0][1]
    assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in losses(local)], abs=1e-6)
    assert weights(job, tmp_path / "there") == weights(local, tmp_path / "here")
    (said,) = job.generate([ASKED], GenerateOptions(max_tokens=8))
    assert said.finish_reason
    job.delete()
    left = {path.name for path in (tmp_path / ("runs" if backend == "ssh" else "shared")).iterdir()}
    assert left <= {".files", ".new", ".queue"}
