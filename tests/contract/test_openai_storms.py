"""Lost, late, doubled and refused requests, in random order: one submit makes one job and one file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import openai
import pytest
from tests.contract.emulated import KEY, MODEL, AzureWorld, EmulatedWorld
from tests.contract.fault_schedules import DIALECT, DIALECT_SENDS, MANY, JobStorms, blind, folders

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class DialectStorms(JobStorms):
    """Jobs count that are not cancelled: one that lands late is, as soon as it is found."""

    fault_mix = DIALECT
    sends = DIALECT_SENDS

    def alive(self, world: Any) -> Sequence[str]:
        jobs: Sequence[str] = world.alive()
        return jobs

    @pytest.mark.parametrize("call", DIALECT_SENDS)
    def test_whoever_does_not_look_first_makes_two(self, tmp_path: Path, call: str) -> None:
        """The counting can fail: a back end that never finds anything is caught by a single lost reply."""
        with closing(self.world(tmp_path)) as world:
            blind(world, call)
            made = world.jobs() if call == "jobs.create" else [f for f in world.emulator.requests if f["call"] == call]
            assert len(made) == 2


class TestOpenAI(DialectStorms):
    world = EmulatedWorld

    @pytest.mark.soak
    @pytest.mark.timeout(3600)
    def test_the_bare_sdk_makes_too_many(self, tmp_path: Path) -> None:
        """In the same weather, for comparison."""
        left = [self.bare(root, seed) for seed, root in folders(tmp_path, MANY)]
        many = sum(max(counts) > 1 for counts in left)
        print(f"\nthe bare SDK left too many jobs or files in {many} of {len(left)} storms")
        assert many > 0

    def bare(self, root: Path, seed: int) -> tuple[int, int]:
        """What a script without cloudtune leaves: the SDK with its own retries, run again while it fails."""
        with closing(self.world(root)) as world:
            self.fault_mix.inject(world, seed, self.sends)
            path = world.spec().data.train.path
            with openai.OpenAI(base_url=world.emulator.openai_url, api_key=KEY) as client:
                for _ in range(30):
                    try:
                        rows = b'{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":"!"}]}\n' * 12
                        file = client.files.create(file=(str(path), rows), purpose="fine-tune")
                        client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
                        break
                    except openai.OpenAIError:
                        continue
            world.heal()
            return len(world.alive()), len(world.uploads())


class TestAzureOpenAI(DialectStorms):
    world = AzureWorld
