"""The Azure OpenAI back end keeps the contract by its second route: azure-ai-ml's own client against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.emulated_workspace import WorkspaceWorld

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.client import Client
    from cloudtune.testing.fork_server import ForkServer


class TestAzureWorkspace(BackendContract):
    expected_skips = 12
    preload = ("openai", "azure.ai.ml")
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[WorkspaceWorld]:
        world = WorkspaceWorld(tmp_path)
        yield world
        world.close()

    @pytest.mark.soak
    @pytest.mark.timeout(900)
    def test_13_a_kill_anywhere_makes_no_second(
        self, world: WorkspaceWorld, client: Client, fork_server: ForkServer
    ) -> None:
        """13: a minute of processes, each of which makes the SDK's client; storms are always gone through."""
        super().test_13_a_kill_anywhere_makes_no_second(world, client, fork_server)
