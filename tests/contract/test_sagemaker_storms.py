"""Lost, late, doubled and refused requests, in random order: one job, one endpoint, one of each file, nothing left."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.contract.fault_schedules import FEW, FaultMix, HostStorms, JobStorms, blind, client_of, until_it_works
from tests.contract.sagemaker_world import SageMakerWorld, ServerlessWorld

from cloudtune.client import Client
from cloudtune.errors import Conflict

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.state import JobRef

__all__ = ["client_of", "inject", "until_it_works"]  # for other storms on SageMaker
_JOB = ("s3.PutObject", "sagemaker.CreateTrainingJob", "sagemaker.CreateModelPackageGroup")
FAULT_MIX = FaultMix(
    reads=("sagemaker.Describe*", "sagemaker.List*", "s3.HeadObject", "sts.*"),
    conditions=(
        ("list_lag", "sagemaker.List*", {"seconds": 25.0}), ("truncated_page", "sagemaker.List*", {}),
        ("clock_skew", "sagemaker.List*", {"seconds": 4000.0}),
    ),
)  # fmt: skip
inject = FAULT_MIX.inject


class TestInstances(JobStorms):
    fault_mix = FAULT_MIX
    sends = _JOB
    files = 2
    world = staticmethod(lambda root: SageMakerWorld(root, root))


class TestServerless(JobStorms):
    fault_mix = FAULT_MIX
    sends = _JOB
    seeds = FEW[:4]
    world = ServerlessWorld

    def check(self, world: ServerlessWorld, ref: JobRef, injected: list[str]) -> None:
        assert world.packages() == 1, injected

    def test_whoever_does_not_look_is_told_that_the_name_is_taken(self, tmp_path: Path) -> None:
        """The name alone keeps a second job from being made: without looking first, and without a token in it."""
        with closing(self.world(tmp_path)) as world:
            ref = blind(world, "sagemaker.CreateTrainingJob")
            assert list(world.jobs()) == [ref.id]


class TestEndpoints(HostStorms):
    fault_mix = FAULT_MIX
    world = ServerlessWorld
    makes = ("sagemaker.CreateModel", "sagemaker.CreateEndpointConfig", "sagemaker.CreateEndpoint")
    removes = ("sagemaker.DeleteEndpoint", "sagemaker.DeleteEndpointConfig", "sagemaker.DeleteModel")


def test_a_stranger_s_job_of_that_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    with closing(ServerlessWorld(tmp_path)) as world:
        client = client_of(world)
        plan = client.plan(world.spec())
        client.submit(plan)
        job = world.emulator.store.get(world.kind, world.api, plan.steps[-1].request["body"]["TrainingJobName"])
        world.emulator.store.save("tags", world.api, {"id": job["arn"], "tags": {"owner": "somebody else"}})
        other = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/other.db", clock=world.clock)
        with pytest.raises(Conflict, match="did not create it"):
            other.submit(world.spec())
