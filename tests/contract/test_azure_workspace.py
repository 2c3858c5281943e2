"""The Azure OpenAI back end keeps the contract by its second route: azure-ai-ml's own client against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.emulated_workspace import LOAD_AZURE, WorkspaceWorld

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestAzureWorkspace(BackendContract):
    expected_skips = 12
    snapshots = Path(__file__).parent / "snapshots"
    warm_up = (LOAD_AZURE,)

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[WorkspaceWorld]:
        world = WorkspaceWorld(tmp_path)
        yield world
        world.close()
