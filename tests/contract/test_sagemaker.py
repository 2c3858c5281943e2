"""The SageMaker back end keeps the contract: boto3 over HTTP against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.sagemaker_world import SageMakerWorld, trained_run

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.client import Client
    from cloudtune.testing.fork_server import ForkServer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


class TestSageMaker(BackendContract):
    expected_skips = 3
    preload = ("boto3",)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path, trained: Path) -> Iterator[SageMakerWorld]:
        world = SageMakerWorld(tmp_path, trained)
        yield world
        world.close()

    @pytest.mark.soak
    @pytest.mark.timeout(900)
    def test_13_a_kill_anywhere_makes_no_second(
        self, world: SageMakerWorld, client: Client, fork_server: ForkServer
    ) -> None:
        """13: JumpStart's test, of the same calls, runs always; here are more uploads."""
        super().test_13_a_kill_anywhere_makes_no_second(world, client, fork_server)
