"""The Azure OpenAI back end keeps the contract on both of its endpoints: the real SDKs against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tests.contract.clauses import rarely
from tests.contract.emulated import LOAD_OPENAI, VERSION, AzureWorld

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


class Azure(BackendContract):
    __test__ = False
    expected_skips = 5
    warm_up = (LOAD_OPENAI,)
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


class TestAzureClassic(Azure):
    __test__ = True
    options = {"api": "classic", "api_version": VERSION}


rarely(TestAzureClassic, ("00", "01", "03", "16", "17"))  # other paths, and the same bodies as on v1
