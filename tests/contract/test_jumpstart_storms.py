"""Lost, late, doubled and refused requests, in random order: one training job, one set of rows, one endpoint."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tests.contract.emulated_sagemaker import JumpStartWorld
from tests.contract.fault_schedules import FaultMix, HostStorms, JobStorms, blind

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.state import TunedModel

FAULT_MIX = FaultMix(
    reads=("sagemaker.Describe*", "sagemaker.List*", "s3.HeadObject", "s3.ListObjectsV2", "sts.*"),
    conditions=(("list_lag", "sagemaker.List*", {"seconds": 25.0}), ("clock_skew", "*", {"seconds": 4000.0})),
)


class TestJobs(JobStorms):
    fault_mix = FAULT_MIX
    sends = ("s3.PutObject", "sagemaker.CreateTrainingJob")
    world = JumpStartWorld

    def test_whoever_does_not_look_first_is_saved_by_the_name(self, tmp_path: Path) -> None:
        """There is no token: the name is all that makes a second request harmless."""
        with closing(self.world(tmp_path)) as world:
            ref = blind(world, "sagemaker.CreateTrainingJob")
            assert world.calls("create") == 2
            assert list(world.jobs()) == [ref.id]


class TestEndpoints(HostStorms):
    """Beside those of the base model, which stand from the start."""

    fault_mix = FAULT_MIX
    world = JumpStartWorld
    makes = ("sagemaker.CreateModel", "sagemaker.CreateEndpointConfig", "sagemaker.CreateEndpoint")
    removes = ("sagemaker.DeleteModel", "sagemaker.DeleteEndpointConfig", "sagemaker.DeleteEndpoint")

    def prepared(self, world: JumpStartWorld) -> TunedModel:
        assert set(world.endpoints().values()) == {1}
        assert not list(world.backend().deployments())
        return super().prepared(world)
