from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtune.testing.fork_server import ForkServer


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    return memory_path


@pytest.fixture(scope="package")
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as fork_server:
        yield fork_server
