from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune.testing.fork_server import ForkServer, shared_fork_server


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    return memory_path


@pytest.fixture
def fork_server() -> ForkServer:
    return shared_fork_server()
