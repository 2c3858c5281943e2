"""Lost, late, doubled and refused requests, in random order: one training job, one set of rows, one endpoint."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tests.contract.emulated_sagemaker import JumpStartWorld
from tests.contract.storms import HostStorms, JobStorms, Weather, blind, client_of

from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloudtune.state import Deployment, TunedModel

_DEPLOY = ("sagemaker.CreateModel", "sagemaker.CreateEndpointConfig", "sagemaker.CreateEndpoint")
_REMOVE = ("sagemaker.DeleteModel", "sagemaker.DeleteEndpointConfig", "sagemaker.DeleteEndpoint")
WEATHER = Weather(
    reads=("sagemaker.Describe*", "sagemaker.List*", "s3.HeadObject", "s3.ListObjectsV2", "sts.*"),
    conditions=(("list_lag", "sagemaker.List*", {"seconds": 25.0}), ("clock_skew", "*", {"seconds": 4000.0})),
)


class TestJobs(JobStorms):
    weather = WEATHER
    sends = ("s3.PutObject", "sagemaker.CreateTrainingJob")

    def world(self, root: Path) -> JumpStartWorld:
        return JumpStartWorld(root)

    def test_whoever_does_not_look_first_is_saved_by_the_name(self, tmp_path: Path) -> None:
        """There is no token: the name is all that makes a second request harmless."""
        with closing(self.world(tmp_path)) as world:
            ref = blind(world, "sagemaker.CreateTrainingJob")
            assert world.calls("create") == 2
            assert list(world.jobs()) == [ref.id]


class TestEndpoints(HostStorms):
    """Beside those of the base model, which stand from the start."""

    weather = WEATHER

    def world(self, root: Path) -> JumpStartWorld:
        return JumpStartWorld(root)

    def prepared(self, world: JumpStartWorld) -> TunedModel:
        job = client_of(world).submit(world.spec())
        world.reach(job.ref, JobState.SUCCEEDED)
        assert set(world.endpoints().values()) == {1}
        assert not list(world.backend().deployments())
        return job.result()

    def sends(self, seed: int) -> tuple[Sequence[str], Sequence[str]]:
        return _DEPLOY, _REMOVE

    def standing(self, world: JumpStartWorld) -> dict[str, int]:
        return world.endpoints()

    def joined(self, before: dict[str, int], made: Deployment) -> dict[str, int]:
        return {kind: count + 1 for kind, count in before.items()}
