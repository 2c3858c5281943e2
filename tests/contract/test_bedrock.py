"""The contract, by the Bedrock back end: boto3 over HTTP against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.emulated_aws import BedrockWorld
from tests.contract.service_models import SHARE_SERVICE_MODELS

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestBedrock(BackendContract):
    expected_skips = 9
    warm_up = (SHARE_SERVICE_MODELS,)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[BedrockWorld]:
        world = BedrockWorld(tmp_path)
        yield world
        world.close()
