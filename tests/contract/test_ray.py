"""The Ray back end keeps the contract: a real cluster with two nodes; the trainer on them takes orders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.local.backend.directed import SECRET, trained_run

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clusters.ray import RayCluster
    from tests.clusters.ray_world import RayWorld

pytestmark = [pytest.mark.starts_trainer, pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


class TestRay(BackendContract):
    expected_skips = 11  # what only a vendor's API can do, deployments, pauses, and the words of the run folder
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(
        self, tmp_path: Path, trained: Path, ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[RayWorld]:
        from tests.clusters.ray_world import RayWorld

        monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", SECRET)  # the submitting user's; it must not be written anywhere
        world = RayWorld(tmp_path, trained, ray_cluster)
        yield world
        world.close()
