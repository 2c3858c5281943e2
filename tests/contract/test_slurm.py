"""The Slurm back end keeps the contract: a real controller and real nodes; the trainer on them takes orders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clusters.worlds import SlurmWorld
from tests.local.backend.directed import SECRET, trained_run

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clusters.slurm import SlurmCluster

pytestmark = pytest.mark.starts_trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


class TestSlurm(BackendContract):
    expected_skips = 9  # what only a vendor over a network can do, deployments, and a missing package
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(
        self, tmp_path: Path, trained: Path, slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SlurmWorld]:
        monkeypatch.setenv("HF_TOKEN", SECRET)  # the trainer may need it; it must not be written anywhere
        monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
        world = SlurmWorld(tmp_path, trained, slurm_cluster)
        yield world
        world.close()
