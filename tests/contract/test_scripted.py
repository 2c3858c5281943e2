"""The scripted vendor keeps the contract in each of its personalities."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from tests.contract.clauses import rarely

from cloudtune.testing.contract import BackendContract
from cloudtune.testing.scripted_world import ScriptedWorld
from cloudtune.testing.vendor import Personality


class Scripted(BackendContract):
    """What the three have in common."""

    __test__ = False
    expected_skips = 1  # export: the weights stay with the vendor
    snapshots = Path(__file__).parent / "snapshots"
    personality: ClassVar[Personality]

    @pytest.fixture
    def world(self, tmp_path: Path) -> ScriptedWorld:
        return ScriptedWorld(tmp_path, self.personality)


class TestToken(Scripted):
    __test__ = True
    personality = "token"


class TestUniqueNames(Scripted):
    __test__ = True
    personality = "unique_names"


class TestNeither(Scripted):
    __test__ = True
    personality = "neither"


# Personalities differ in how rows are sent and how a file or a job is found again, which no other clause asks for; the
# rest of the contract is that of `TestToken`.
for _personality in (TestUniqueNames, TestNeither):
    rarely(_personality, ("00", "01", "02", "03", "04", "07", "12", "13", "17", "20"))
