"""The SageMaker back end with AWS's own trainers keeps the contract: boto3 over HTTP against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.clauses import rarely
from tests.contract.sagemaker_world import ServerlessWorld
from tests.contract.service_models import SHARE_SERVICE_MODELS

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestServerless(BackendContract):
    expected_skips = 7
    warm_up = (SHARE_SERVICE_MODELS,)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[ServerlessWorld]:
        world = ServerlessWorld(tmp_path, mlflow="arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-X")
        yield world
        world.close()


rarely(TestServerless, ("00", "01", "02", "14", "15"))  # its jobs are read and steered as those on instances are
