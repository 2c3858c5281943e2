"""The SageMaker back end keeps the contract: boto3 over HTTP against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.sagemaker_world import SageMakerWorld, trained_run
from tests.contract.service_models import SHARE_SERVICE_MODELS

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.starts_trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


class TestSageMaker(BackendContract):
    expected_skips = 3
    warm_up = (SHARE_SERVICE_MODELS,)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path, trained: Path) -> Iterator[SageMakerWorld]:
        world = SageMakerWorld(tmp_path, trained)
        yield world
        world.close()
