"""The OpenAI back end keeps the contract: the real SDK over HTTP against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.emulated import LOAD_OPENAI, EmulatedWorld

from cloudtune.testing.contract import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestOpenAI(BackendContract):
    expected_skips = 5
    warm_up = (LOAD_OPENAI,)
    snapshots = Path(__file__).parent / "snapshots"

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[EmulatedWorld]:
        world = EmulatedWorld(tmp_path)
        yield world
        world.close()
