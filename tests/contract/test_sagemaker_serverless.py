"""The SageMaker back end with AWS's own trainers keeps the contract: boto3 over HTTP against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.sagemaker_world import ServerlessWorld

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.client import Client
    from cloudtune.testing.nursery import Nursery


class TestServerless(BackendContract):
    expected_skips = 8
    preload = ("boto3",)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[ServerlessWorld]:
        world = ServerlessWorld(tmp_path)
        yield world
        world.close()

    @pytest.mark.soak
    @pytest.mark.timeout(600)
    def test_13_a_kill_anywhere_makes_no_second(self, world: ServerlessWorld, client: Client, nursery: Nursery) -> None:
        """13: JumpStart's test, of the same calls, runs always."""
        super().test_13_a_kill_anywhere_makes_no_second(world, client, nursery)
