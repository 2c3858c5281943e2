"""The back end keeps cloudtune's contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from acme_tuning.world import AcmeWorld

pytest.register_assert_rewrite("cloudtune.testing.contract")
from cloudtune.testing.contract import BackendContract  # noqa: E402 - after its asserts are to be rewritten


class TestAcme(BackendContract):
    """Every clause, but for those that the service has nothing for."""

    expected_skips = 8
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> AcmeWorld:
        """The service, as a test sees it."""
        return AcmeWorld(tmp_path)
