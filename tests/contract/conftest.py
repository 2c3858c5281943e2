from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.service_models import share_service_models


@pytest.fixture(autouse=True, scope="session")
def _one_loader() -> None:
    share_service_models()


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    return memory_path
