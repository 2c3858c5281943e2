"""The Azure OpenAI back end keeps the contract on both of its endpoints: the real SDKs against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tests.contract.emulated import VERSION, AzureWorld

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.client import Client
    from cloudtune.testing.fork_server import ForkServer


class Azure(BackendContract):
    __test__ = False
    expected_skips = 5
    preload = ("openai",)
    snapshots = Path(__file__).parent / "snapshots"
    options: ClassVar[dict[str, Any]]

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[AzureWorld]:
        world = AzureWorld(tmp_path, **self.options)
        yield world
        world.close()


class TestAzureV1(Azure):
    __test__ = True
    options = {"api": "v1"}

    @pytest.mark.soak
    @pytest.mark.timeout(600)
    def test_13_a_kill_anywhere_makes_no_second(
        self, world: AzureWorld, client: Client, fork_server: ForkServer
    ) -> None:
        """13: the steps are OpenAI's, whose test runs always."""
        super().test_13_a_kill_anywhere_makes_no_second(world, client, fork_server)


class TestAzureClassic(Azure):
    __test__ = True
    options = {"api": "classic", "api_version": VERSION}
    test_13_a_kill_anywhere_makes_no_second = None  # minutes of the same steps as on v1
