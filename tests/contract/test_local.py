"""The local back end keeps the contract: run folders and workers are real, the trainer under them takes orders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.local.backend.directed import SECRET, LocalWorld, trained_run

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.starts_trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


class TestLocal(BackendContract):
    expected_skips = 8  # what only a vendor over a network can do, and deployments
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalWorld]:
        monkeypatch.setenv("HF_TOKEN", SECRET)  # the trainer may need it; it must not be written anywhere
        world = LocalWorld(tmp_path, trained)
        yield world
        world.close()
