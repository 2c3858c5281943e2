"""The workspace route beyond the contract: foreign jobs, randomized faults, blobs, other jobs, permissions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.storage.blob import BlobServiceClient
from tests.contract.emulated_workspace import CATALOGUE_MODEL, WorkspaceWorld
from tests.contract.fault_schedules import FaultMix, JobStorms

from cloudtune.client import Client
from cloudtune.errors import Conflict, CredentialsError, InvalidRequest, PermissionDenied
from cloudtune.state import JobState
from cloudtune_emulator.azure import storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.state import JobRef


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WorkspaceWorld]:
    world = WorkspaceWorld(tmp_path)
    yield world
    world.close()


def client_of(world: WorkspaceWorld, ledger: str = "ledger") -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/{ledger}.db", clock=world.clock)


class TestStorms(JobStorms):
    fault_mix = FaultMix(reads=("blobs.head", "mljobs.get", "datastores.get", "datastores.secrets"))
    sends = ("blobs.put", "mljobs.create")
    files = 2
    world = WorkspaceWorld

    def check(self, world: WorkspaceWorld, ref: JobRef, injected: list[str]) -> None:
        assert client_of(world, "another").submit(world.spec()).ref == ref, "found again without a ledger"
        assert len(world.jobs()) == 1, injected


def test_a_strangers_job_of_that_name_is_a_conflict(world: WorkspaceWorld) -> None:
    client = client_of(world)
    plan = client.plan(world.spec())
    name = plan.steps[-1].request["name"]
    properties = {"jobType": "FineTuning", "status": "Running", "tags": {}, "fineTuningDetails": {}}
    world.emulator.store.add(
        "mljob", "azure", {"id": name, "created": 0, "acts": [], "properties": properties, "script": {}}
    )
    with pytest.raises(Conflict, match=name):
        client.submit(plan)
    assert list(world.jobs()) == [name]


def test_a_strangers_blob_of_that_name_is_a_conflict(world: WorkspaceWorld) -> None:
    client = client_of(world)
    plan = client.plan(world.spec())
    blob = next(step.request["blob"] for step in plan.steps if step.id == "upload_train")
    container = container_of(world)
    container.upload_blob(blob, b"something else")
    with pytest.raises(Conflict, match="14 bytes"):
        client.submit(plan)
    assert container.download_blob(blob).readall() == b"something else"
    assert not world.jobs()


def container_of(world: WorkspaceWorld, **options: Any) -> Any:
    credential = {"account_name": "emulated", "account_key": storage.key_of(world.emulator.context)}
    url = f"{world.emulator.url}/blobs/emulated"
    return BlobServiceClient(url, credential=credential, retry_total=0, **options).get_container_client(
        storage.CONTAINER
    )


def test_the_rows_arrive_as_they_are_with_blocks_too(world: WorkspaceWorld) -> None:
    plan = client_of(world).plan(world.spec())
    client_of(world).submit(plan)
    blob = next(step.request["blob"] for step in plan.steps if step.id == "upload_train")
    sent = container_of(world).download_blob(blob).readall()
    assert sent.count(b"\n") == 12
    assert b'"messages"' in sent
    rows = os.urandom(300_000)
    small = container_of(world, max_single_put_size=1024, max_block_size=65536, min_large_block_upload_threshold=1)
    small.upload_blob("large", rows, validate_content=True)
    assert container_of(world).download_blob("large").readall() == rows
    assert [seen["call"] for seen in world.emulator.requests].count("blobs.block") == 5


def test_a_wrong_storage_key_opens_nothing(world: WorkspaceWorld) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    url, wrong = f"{world.emulator.url}/blobs/emulated", {"account_name": "emulated", "account_key": "d3Jvbmc="}
    with pytest.raises(ClientAuthenticationError):
        BlobServiceClient(url, credential=wrong, retry_total=0).get_container_client("c").upload_blob("b", b"x")


def test_deleting_a_job_leaves_the_rows_that_another_learns_from(world: WorkspaceWorld) -> None:
    client = client_of(world)
    first, second = client.submit(world.spec()), client.submit(world.spec(hyperparameters={"epochs": 2}))
    assert len(world.uploads()) == 2, "equal rows are uploaded once"
    with pytest.raises(InvalidRequest):
        first.delete()
    for job in (first, second):
        world.reach(job.ref, JobState.RUNNING)
        world.reach(job.ref, JobState.SUCCEEDED)
    first.delete()
    assert len(world.uploads()) == 2
    second.delete()
    assert (list(world.uploads()), list(world.jobs())) == ([], [])


def test_only_jobs_that_tune_are_told(world: WorkspaceWorld) -> None:
    client = client_of(world)
    ref = client.submit(world.spec()).ref
    other = {"id": "sweep", "created": 0, "acts": [], "properties": {"jobType": "Sweep", "status": "Running"}}
    world.emulator.store.add("mljob", "azure", other | {"script": {}})
    assert [job.ref for job in client.jobs(remote=True)] == [ref]


def test_a_failure_is_told_also_where_the_record_of_the_run_is_closed(world: WorkspaceWorld) -> None:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    world.reach(job.ref, JobState.FAILED, message="row 3 is broken")
    world.emulator.faults.add("forbidden", "mlruns.get", times=1)
    closed = job.snapshot()
    assert closed.problem is not None
    assert "did not give a reason" in closed.problem.message
    opened = job.snapshot()
    assert opened.problem is not None
    assert opened.problem.message == "row 3 is broken"


def test_a_refusal_of_the_store_is_told_without_its_key(world: WorkspaceWorld) -> None:
    key = storage.key_of(world.emulator.context)
    world.emulator.faults.add("forbidden", "blobs.put", message=f"not with {key}")
    with pytest.raises(PermissionDenied, match="upload") as refused:
        client_of(world).submit(world.spec())
    assert key not in str(refused.value)
    world.emulator.faults.add("expired_credentials", "datastores.get")
    with pytest.raises(CredentialsError, match="datastore workspaceblobstore"):
        client_of(world, "another").submit(world.spec(1))


def test_a_datastore_that_is_not_there_is_told(tmp_path: Path) -> None:
    world = WorkspaceWorld(tmp_path, datastore="elsewhere")
    try:
        with pytest.raises(InvalidRequest, match="datastore elsewhere") as refused:
            client_of(world).submit(world.spec())
        assert refused.value.__cause__ is not None
        assert not world.uploads()
    finally:
        world.close()


def test_nothing_of_this_machine_is_told(world: WorkspaceWorld) -> None:
    """The SDK's own way adds the working folder's repository, branch and commit to the job."""
    client_of(world).submit(world.spec())
    (body,) = world.received()
    assert "properties" not in body["properties"]
    assert body["properties"]["fineTuningDetails"]["model"]["uri"] == CATALOGUE_MODEL
